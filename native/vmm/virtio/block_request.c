// SPDX-License-Identifier: Apache-2.0
/* One request to a block device (VIRTIO 1.2, 5.2.6). */
#include <errno.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/virtio_blk.h>
#include <string.h>
#include <time.h>

#include "block.h"

#define TRIES_MAX	64	/* of a request that is done in parts */

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void request_finish(struct hako_block_request *r, uint8_t status)
{
	struct hako_block_device *b = r->device;

	*r->status = status;
	r->busy = false;
	b->counters[r->counter].operations++;
	b->counters[r->counter].errors += status != VIRTIO_BLK_S_OK;
	b->counters[r->counter].ns += now_ns() - r->started;
	if (hako_queue_push(&b->virtio.queues[r->queue], r->head, (status == VIRTIO_BLK_S_OK ? r->written : 0) + 1) == 0)
		b->signals |= 1u << r->queue;
	b->user.unsettled = true;
}

static void data_submit(struct hako_block_request *r)
{
	r->io.iov = r->left.iov;
	r->io.count = r->left.count;
	r->io.offset = r->position;
	hako_io_submit(&r->io);
}

/*
 * Reads and writes may be done in parts. A read meets the end of the file in its last sector, if that is no whole
 * one, and finds zeros there; earlier than that the file has become shorter, which is an error.
 */
static void data_done(struct hako_io *io, int result)
{
	struct hako_block_request *r = hako_container_of(io, struct hako_block_request, io);
	struct hako_block_device *b = r->device;
	bool reading = io->operation == HAKO_IO_READ;

	if (result == -EINTR || result == -EAGAIN) {
		result = 0;
	} else if (result < 0) {
		request_finish(r, VIRTIO_BLK_S_IOERR);
		return;
	} else {
		hako_buffers_skip(&r->left, (uint32_t)result);
		r->position += (uint32_t)result;
		if (reading && result == 0 && r->position >= b->size)
			hako_buffers_clear(&r->left);
	}
	b->counters[r->counter].bytes += (uint32_t)result;
	if (r->left.bytes == 0)
		request_finish(r, VIRTIO_BLK_S_OK);
	else if (r->tries++ == TRIES_MAX || (result == 0 && r->position >= b->size + HAKO_SECTOR))
		request_finish(r, VIRTIO_BLK_S_IOERR);
	else
		data_submit(r);
}

static bool range_valid(const struct hako_block_device *b, uint64_t sector, uint64_t bytes)
{
	uint64_t sectors = hako_block_sectors(b);

	return bytes % HAKO_SECTOR == 0 && sector <= sectors && bytes / HAKO_SECTOR <= sectors - sector;
}

static void data_start(struct hako_block_request *r, const struct hako_buffers *buffers, uint64_t sector)
{
	struct hako_block_device *b = r->device;
	bool reading = r->counter == HAKO_BLOCK_READ;

	if (!range_valid(b, sector, buffers->bytes) || (!reading && b->read_only) ||
	    buffers->count > HAKO_BLOCK_SEGMENTS_MAX + 2) {
		request_finish(r, VIRTIO_BLK_S_IOERR);
		return;
	}
	if (buffers->bytes == 0) {
		request_finish(r, VIRTIO_BLK_S_OK);
		return;
	}
	memcpy(r->iov, buffers->iov, buffers->count * sizeof(r->iov[0]));
	r->left = (struct hako_buffers){ .iov = r->iov, .count = buffers->count, .bytes = buffers->bytes };
	r->position = sector * HAKO_SECTOR;
	r->written = reading ? buffers->bytes : 0;
	r->io.operation = reading ? HAKO_IO_READ : HAKO_IO_WRITE;
	/* A driver that knows no flush expects every write to last. */
	r->io.mode = !reading && b->write_through ? RWF_DSYNC : 0;
	r->io.done = data_done;
	data_submit(r);
}

static void plain_done(struct hako_io *io, int result)
{
	struct hako_block_request *r = hako_container_of(io, struct hako_block_request, io);

	/* A file system without this mode of zeroing has the other one: a hole reads as zeros, too. */
	if (result == -EOPNOTSUPP && io->mode == (FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE)) {
		io->mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
		hako_io_submit(io);
		return;
	}
	if (result == -EOPNOTSUPP)
		request_finish(r, VIRTIO_BLK_S_UNSUPP);
	else
		request_finish(r, result < 0 ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_OK);
}

/* A discard or write-zeroes of one range: more are not offered. */
static void range_start(struct hako_block_request *r, struct hako_buffers *buffers, bool zeroes)
{
	struct virtio_blk_discard_write_zeroes range;
	struct hako_block_device *b = r->device;
	uint32_t unmap = VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
	bool whole = buffers->bytes == sizeof(range);

	if (!whole || !hako_buffers_get(buffers, &range, sizeof(range)) || b->read_only ||
	    range.num_sectors > HAKO_BLOCK_RANGE_MAX ||
	    !range_valid(b, range.sector, (uint64_t)range.num_sectors * HAKO_SECTOR)) {
		request_finish(r, VIRTIO_BLK_S_IOERR);
		return;
	}
	if (range.flags & ~(zeroes ? unmap : 0)) {
		request_finish(r, VIRTIO_BLK_S_UNSUPP);
		return;
	}
	if (range.num_sectors == 0) {
		request_finish(r, VIRTIO_BLK_S_OK);
		return;
	}
	r->io.operation = HAKO_IO_ALLOCATE;
	r->io.mode = (zeroes && !(range.flags & unmap) ? FALLOC_FL_ZERO_RANGE : FALLOC_FL_PUNCH_HOLE) |
		     FALLOC_FL_KEEP_SIZE;
	r->io.offset = range.sector * HAKO_SECTOR;
	r->io.length = (uint64_t)range.num_sectors * HAKO_SECTOR;
	r->io.done = plain_done;
	hako_io_submit(&r->io);
}

static void request_start(struct hako_block_request *r, struct hako_chain *chain, const struct virtio_blk_outhdr *header)
{
	struct hako_block_device *b = r->device;

	switch (header->type) {
	case VIRTIO_BLK_T_IN:
		r->counter = HAKO_BLOCK_READ;
		data_start(r, &chain->write, header->sector);
		break;
	case VIRTIO_BLK_T_OUT:
		r->counter = HAKO_BLOCK_WRITE;
		data_start(r, &chain->read, header->sector);
		break;
	case VIRTIO_BLK_T_FLUSH:
		r->counter = HAKO_BLOCK_FLUSH;
		r->io.operation = HAKO_IO_SYNC;
		r->io.done = plain_done;
		hako_io_submit(&r->io);
		break;
	case VIRTIO_BLK_T_DISCARD:
	case VIRTIO_BLK_T_WRITE_ZEROES:
		r->counter = HAKO_BLOCK_DISCARD;
		range_start(r, &chain->read, header->type == VIRTIO_BLK_T_WRITE_ZEROES);
		break;
	case VIRTIO_BLK_T_GET_ID:
		r->written = HAKO_BLOCK_SERIAL;
		request_finish(r, hako_buffers_put(&chain->write, b->serial, HAKO_BLOCK_SERIAL) ? VIRTIO_BLK_S_OK
											   : VIRTIO_BLK_S_IOERR);
		break;
	default:
		request_finish(r, VIRTIO_BLK_S_UNSUPP);
	}
}

/* The last byte that the device may write, taken off. */
static uint8_t *status_take(struct hako_buffers *buffers)
{
	const struct iovec *last = &buffers->iov[buffers->count - 1];
	uint8_t *status;

	if (buffers->bytes == 0)
		return NULL;
	status = (uint8_t *)last->iov_base + last->iov_len - 1;
	hako_buffers_trim(buffers, buffers->bytes - 1);
	return status;
}

int hako_block_start(struct hako_block_device *b, uint32_t queue, struct hako_chain *chain)
{
	struct hako_block_request *r = &b->requests[queue * b->queue_size + chain->head];
	uint8_t *status = status_take(&chain->write);
	struct virtio_blk_outhdr header;

	/* A head that comes again before it was given back is in two places at once. */
	if (r->busy || !status || !hako_buffers_get(&chain->read, &header, sizeof(header)))
		return -EPROTO;
	r->busy = true;
	r->device = b;
	r->io.slot = b->virtio.slot;
	r->io.mode = 0;
	r->status = status;
	r->queue = (uint16_t)queue;
	r->head = chain->head;
	r->counter = HAKO_BLOCK_OTHER;
	r->tries = 0;
	r->written = 0;
	r->started = now_ns();
	hako_limiter_take(&b->limiter, chain->read.bytes + chain->write.bytes);
	request_start(r, chain, &header);
	return 0;
}
