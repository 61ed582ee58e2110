/* SPDX-License-Identifier: Apache-2.0 */
/* The block device: block.c is the device, block_request.c one request from header to status. */
#ifndef HAKO_VMM_VIRTIO_BLOCK_H
#define HAKO_VMM_VIRTIO_BLOCK_H

#include "device.h"
#include "io.h"
#include "limiter.h"

#define HAKO_SECTOR		512
#define HAKO_BLOCK_SEGMENTS_MAX	126
#define HAKO_BLOCK_RANGE_MAX	(1u << 22)	/* sectors of one discard: 2 GiB */
#define HAKO_BLOCK_SERIAL	20		/* bytes */

/* What is counted, by kind of request. */
enum { HAKO_BLOCK_READ, HAKO_BLOCK_WRITE, HAKO_BLOCK_FLUSH, HAKO_BLOCK_DISCARD, HAKO_BLOCK_OTHER, HAKO_BLOCK_COUNTERS };

struct hako_block_device;

struct hako_block_request {
	struct hako_io io;
	struct hako_block_device *device;
	struct hako_buffers left;	/* what is not read or written yet */
	uint64_t position, started;	/* bytes; ns */
	uint8_t *status;		/* in guest memory */
	uint32_t written;		/* bytes into the chain, the status not counted */
	uint16_t queue, head;
	uint8_t counter, tries;
	bool busy;
	struct iovec iov[HAKO_BLOCK_SEGMENTS_MAX + 2];
};

struct hako_block_device {
	struct hako_virtio virtio;
	struct hako_io_user user;
	struct hako_limiter limiter;
	uint64_t size;
	bool read_only, write_through;
	char serial[HAKO_BLOCK_SERIAL];
	uint32_t queue_size;
	struct hako_block_request *requests;	/* one for each entry of each queue, by the head of its chain */
	uint32_t signals;			/* queues with something new for the driver */
	struct {
		uint64_t operations, bytes, errors, ns;
	} counters[HAKO_BLOCK_COUNTERS];
};

static inline uint64_t hako_block_sectors(const struct hako_block_device *device)
{
	return (device->size + HAKO_SECTOR - 1) / HAKO_SECTOR;
}

/* Starts the request in a chain, and may finish it. -EPROTO for a chain that is none. */
int hako_block_start(struct hako_block_device *device, uint32_t queue, struct hako_chain *chain);

#endif
