/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of a machine, in one table: which request is allowed in which state, and where it leads.
 * Everything that is not in the table (request.c) is refused with -EBUSY.
 */
#ifndef HAKO_VMM_STATE_H
#define HAKO_VMM_STATE_H

#define HAKO_STATE_EMPTY	1	/* no machine yet */
#define HAKO_STATE_CREATED	2	/* never ran; its devices and registers are being set */
#define HAKO_STATE_RUNNING	3
#define HAKO_STATE_PAUSED	4
#define HAKO_STATE_ENDED	5	/* the guest is gone, the process about to be */

#endif
