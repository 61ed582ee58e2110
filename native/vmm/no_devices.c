// SPDX-License-Identifier: Apache-2.0
/* Stands in for virtio/ until the devices are there: no kind is known, so none of these is ever called. */
#include <errno.h>

#include "virtio/device.h"

#define ABSENT __attribute__((weak))

ABSENT const struct hako_virtio_ops hako_virtio_block, hako_virtio_net, hako_virtio_vsock, hako_virtio_pmem,
	hako_virtio_console, hako_virtio_rng, hako_virtio_balloon, hako_virtio_mem;

ABSENT int hako_virtio_open(struct hako_machine *machine, const struct hako_device_request *request,
			    struct hako_virtio **virtio, char *error)
{
	(void)machine, (void)request, (void)virtio, (void)error;
	return -EOPNOTSUPP;
}

ABSENT void hako_virtio_close(struct hako_virtio *virtio) { (void)virtio; }
ABSENT void hako_virtio_read(struct hako_virtio *virtio, uint32_t offset, void *data, uint32_t length)
{
	(void)virtio, (void)offset, (void)data, (void)length;
}
ABSENT void hako_virtio_write(struct hako_virtio *virtio, uint32_t offset, const void *data, uint32_t length)
{
	(void)virtio, (void)offset, (void)data, (void)length;
}
ABSENT void hako_virtio_quiesce(struct hako_virtio *virtio) { (void)virtio; }
ABSENT void hako_virtio_resume(struct hako_virtio *virtio) { (void)virtio; }
ABSENT void hako_virtio_save(struct hako_virtio *virtio, struct hako_bytes *bytes) { (void)virtio, (void)bytes; }
ABSENT int hako_virtio_restore(struct hako_virtio *virtio, struct hako_bytes *bytes)
{
	(void)virtio, (void)bytes;
	return -EOPNOTSUPP;
}
