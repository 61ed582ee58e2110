// SPDX-License-Identifier: Apache-2.0
/* The block device (VIRTIO 1.2, 5.2). */
#include <errno.h>
#include <linux/virtio_blk.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "block.h"

#define SEGMENT_BYTES_MAX	(4u << 20)
#define QUEUES_MAX		16
#define PHYSICAL_BLOCK_SHIFT	3	/* 4096 bytes */

static struct hako_block_device *block_of(struct hako_virtio *v)
{
	return hako_container_of(v, struct hako_block_device, virtio);
}

static int block_notify(struct hako_virtio *v, uint32_t queue)
{
	struct hako_block_device *b = block_of(v);
	uint32_t budget = b->queue_size;
	struct hako_chain chain;
	int ret = 0;

	while (budget-- && hako_limiter_ready(&b->limiter)) {
		ret = hako_queue_pop(&v->queues[queue], v->memory, &chain);
		if (ret <= 0)
			break;
		ret = hako_block_start(b, queue, &chain);
		if (ret < 0)
			break;
	}
	if (budget == UINT32_MAX)
		hako_virtio_kick(v, queue);
	hako_io_flush();
	return ret < 0 ? ret : 0;
}

static void block_settled(struct hako_io_user *user)
{
	struct hako_block_device *b = hako_container_of(user, struct hako_block_device, user);

	for (uint32_t i = 0; b->signals; i++) {
		if (!(b->signals & 1u << i))
			continue;
		b->signals &= ~(1u << i);
		hako_virtio_signal_queue(&b->virtio, i);
	}
}

static void block_again(struct hako_limiter *limiter)
{
	struct hako_block_device *b = hako_container_of(limiter, struct hako_block_device, limiter);

	for (uint32_t i = 0; i < b->virtio.queue_count; i++)
		hako_virtio_kick(&b->virtio, i);
}

/* ---- life */

static int block_open(struct hako_virtio *v, const struct hako_device_request *request)
{
	struct hako_block_device *b = block_of(v);
	const struct hako_block *config = request->config;
	uint32_t queues = request->add->queues ? request->add->queues : 1;
	int ret;

	if (request->fd_count != 1 || queues > QUEUES_MAX || config->size > INT64_MAX - HAKO_SECTOR)
		return -EINVAL;
	b->queue_size = v->queues[0].max_size;
	b->size = config->size;
	b->read_only = request->add->flags & HAKO_DEVICE_READ_ONLY;
	memcpy(b->serial, config->serial, HAKO_BLOCK_SERIAL);
	hako_limiter_init(&b->limiter, v->loop, block_again);
	b->requests = calloc((size_t)queues * b->queue_size, sizeof(b->requests[0]));
	if (!b->requests)
		return -ENOMEM;
	b->user = (struct hako_io_user){ .slot = v->slot, .fd = request->fds[0], .settled = block_settled };
	ret = hako_limiter_set(&b->limiter, &config->limit);
	if (ret == 0)
		ret = hako_io_attach(&b->user);
	if (ret < 0) {
		hako_limiter_close(&b->limiter);
		free(b->requests);
		return ret;
	}
	request->fds[0] = -1;
	v->queue_count = queues;
	v->config_size = sizeof(struct virtio_blk_config);
	v->features = 1ull << VIRTIO_BLK_F_SEG_MAX | 1ull << VIRTIO_BLK_F_SIZE_MAX | 1ull << VIRTIO_BLK_F_BLK_SIZE |
		      1ull << VIRTIO_BLK_F_TOPOLOGY;
	v->features |= b->read_only ? 1ull << VIRTIO_BLK_F_RO :
				      1ull << VIRTIO_BLK_F_FLUSH | 1ull << VIRTIO_BLK_F_DISCARD |
					      1ull << VIRTIO_BLK_F_WRITE_ZEROES;
	if (queues > 1)
		v->features |= 1ull << VIRTIO_BLK_F_MQ;
	return 0;
}

static void block_close(struct hako_virtio *v)
{
	struct hako_block_device *b = block_of(v);

	hako_io_detach(&b->user);
	hako_limiter_close(&b->limiter);
	close(b->user.fd);
	free(b->requests);
}

static int block_activate(struct hako_virtio *v)
{
	block_of(v)->write_through = !hako_virtio_accepted(v, VIRTIO_BLK_F_FLUSH);
	return 0;
}

/* Also the way back: a request in the kernel's hands cannot be given up before it is done. */
static void block_drain(struct hako_virtio *v)
{
	hako_io_drain(&block_of(v)->user);
}

static void block_config_read(struct hako_virtio *v, uint32_t offset, void *data, uint32_t length)
{
	const struct hako_block_device *b = block_of(v);
	uint32_t direct = b->queue_size > 2 ? b->queue_size - 2 : 1;
	struct virtio_blk_config config = {
		.capacity = hako_block_sectors(b),
		.size_max = SEGMENT_BYTES_MAX,
		.seg_max = direct < HAKO_BLOCK_SEGMENTS_MAX ? direct : HAKO_BLOCK_SEGMENTS_MAX,
		.blk_size = HAKO_SECTOR,
		.physical_block_exp = PHYSICAL_BLOCK_SHIFT,
		.min_io_size = 1 << PHYSICAL_BLOCK_SHIFT,
		.num_queues = (uint16_t)v->queue_count,
		.max_discard_sectors = HAKO_BLOCK_RANGE_MAX,
		.max_discard_seg = 1,
		.discard_sector_alignment = 1 << PHYSICAL_BLOCK_SHIFT,
		.max_write_zeroes_sectors = HAKO_BLOCK_RANGE_MAX,
		.max_write_zeroes_seg = 1,
		.write_zeroes_may_unmap = 1,
	};

	memcpy(data, (const uint8_t *)&config + offset, length);
}

static int block_update(struct hako_virtio *v, const void *update, int *fds, uint32_t fd_count)
{
	struct hako_block_device *b = block_of(v);
	const struct hako_block *config = update;
	int ret;

	if (fd_count > 1 || config->size > INT64_MAX - HAKO_SECTOR)
		return -EINVAL;
	if (fd_count) {
		int old = b->user.fd;

		block_drain(v);
		ret = hako_io_replace(&b->user, fds[0]);
		if (ret < 0)
			return ret;
		fds[0] = -1;
		close(old);
	}
	ret = hako_limiter_set(&b->limiter, &config->limit);
	if (config->size != b->size) {
		b->size = config->size;
		hako_virtio_signal_config(v);
	}
	return ret;
}

static void block_metrics(struct hako_virtio *v)
{
	static const char *const names[HAKO_BLOCK_COUNTERS][4] = {
		{ "read_operations", "read_bytes", "read_errors", "read_ns" },
		{ "write_operations", "write_bytes", "write_errors", "write_ns" },
		{ "flush_operations", NULL, "flush_errors", "flush_ns" },
		{ "discard_operations", NULL, "discard_errors", "discard_ns" },
		{ "other_operations", NULL, "other_errors", NULL },
	};
	const struct hako_block_device *b = block_of(v);

	for (int i = 0; i < HAKO_BLOCK_COUNTERS; i++) {
		const uint64_t values[] = { b->counters[i].operations, b->counters[i].bytes, b->counters[i].errors,
					    b->counters[i].ns };

		for (int n = 0; n < 4; n++) {
			if (names[i][n])
				hako_metric_add(v->machine, v->slot, names[i][n], values[n]);
		}
	}
}

const struct hako_virtio_ops hako_virtio_block = {
	.kind = HAKO_KIND_BLOCK,
	.name = "block",
	.instance_size = sizeof(struct hako_block_device),
	.config_size = sizeof(struct hako_block),
	.update_size = sizeof(struct hako_block),
	.queue_size = 128,
	.open = block_open,
	.close = block_close,
	.activate = block_activate,
	.reset = block_drain,
	.notify = block_notify,
	.config_read = block_config_read,
	.quiesce = block_drain,
	.update = block_update,
	.metrics = block_metrics,
};
