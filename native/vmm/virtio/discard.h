/* SPDX-License-Identifier: Apache-2.0 */
/* Giving guest memory back to the host: what was discarded reads as zeros, or as the file's content if it is private. */
#ifndef HAKO_VMM_VIRTIO_DISCARD_H
#define HAKO_VMM_VIRTIO_DISCARD_H

#include "../memory.h"

/*
 * Whole pages inside the range only. 0; -EFAULT: it does not lie in one region that holds the guest's own memory
 * (read-only and volatile ones do not: what is in their files is not the guest's to give away); else -errno.
 */
int hako_discard_guest(const struct hako_memory *memory, uint64_t gpa, uint64_t length);
int hako_discard_host(const struct hako_memory *memory, void *host, uint64_t length);

#endif
