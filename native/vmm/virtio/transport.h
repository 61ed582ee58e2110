/* SPDX-License-Identifier: Apache-2.0 */
/* What device.c (making, pausing, saving devices) needs of transport.c (registers, status, interrupts). */
#ifndef HAKO_VMM_VIRTIO_TRANSPORT_H
#define HAKO_VMM_VIRTIO_TRANSPORT_H

#include "device.h"

/* `cause`: VIRTIO_MMIO_INT_*. */
void hako_transport_interrupt(struct hako_virtio *virtio, uint32_t cause);
/* Calls the kind's notify if the device is running and the queue is set up. */
void hako_transport_notify(struct hako_virtio *virtio, uint32_t queue);
/* The handler of a notifier. */
void hako_transport_handle(struct hako_source *source, uint32_t events);
/* Whether a driver may accept these. */
bool hako_transport_features(const struct hako_virtio *virtio, uint64_t features);
/* Finds the rings of all queues that are ready. -EINVAL, -EFAULT. */
int hako_transport_rings(struct hako_virtio *virtio);
/* Rings, then the kind's activate. */
int hako_transport_activate(struct hako_virtio *virtio);
/* The kind's reset, if it was active. */
void hako_transport_stop(struct hako_virtio *virtio);

#endif
