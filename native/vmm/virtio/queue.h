/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Split virtqueues (VIRTIO 1.2, 2.7), the device's side. Everything in the rings comes from the guest and may
 * change at any moment: each value is read once, checked, and only the copy is used.
 */
#ifndef HAKO_VMM_VIRTIO_QUEUE_H
#define HAKO_VMM_VIRTIO_QUEUE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "../memory.h"

#define HAKO_QUEUE_SIZE_MAX	1024
/* Most buffers of one chain, direct or indirect; more is an error of the guest. */
#define HAKO_CHAIN_MAX		256

struct hako_queue {
	uint16_t max_size;	/* what the device offers */
	uint16_t size;		/* what the driver chose */
	bool ready;
	uint64_t desc, avail, used;	/* guest addresses */

	/* Valid from activation to reset: host addresses of the three rings, checked as a whole. */
	const void *desc_host;
	const void *avail_host;
	void *used_host;
	bool event_idx;		/* VIRTIO_F_EVENT_IDX negotiated */
	uint16_t next_avail;
	uint16_t next_used;
	uint16_t signalled_used;	/* next_used at the last interrupt */
	bool signalled_valid;
};

/* Some buffers in a row; the functions below take bytes off their front. */
struct hako_buffers {
	struct iovec *iov;
	uint32_t count, bytes;
};

/* One request: buffers that the device reads, and buffers that it writes. */
struct hako_chain {
	uint16_t head;
	struct hako_buffers read, write;
	struct iovec iov[HAKO_CHAIN_MAX];	/* first those of `read`, then those of `write` */
};

/* Checks sizes and alignment of the rings and finds them in guest memory. -EINVAL, -EFAULT. */
int hako_queue_activate(struct hako_queue *queue, const struct hako_memory *memory, bool event_idx);
void hako_queue_reset(struct hako_queue *queue);

/*
 * Takes the next chain. 1: there is one; 0: none (and, with event idx, the driver has been asked to tell of the
 * next one; a chain that came in between is found by the same call); -EPROTO: the guest broke the rules (a loop,
 * an index outside, a length or address outside its memory, a writable buffer before a readable one, an index
 * that runs away): the device needs a reset.
 */
int hako_queue_pop(struct hako_queue *queue, const struct hako_memory *memory, struct hako_chain *chain);
/* Asks to be told of the next chain that the driver adds, although some wait already. Returns how many it has added. */
uint16_t hako_queue_ask(struct hako_queue *queue);

/* Gives the last popped chain back to the ring as if it had not been popped; again for the one before it. */
void hako_queue_unpop(struct hako_queue *queue);

/* Tells the driver that `written` bytes were put into the chain; -EPROTO for a ring that is gone. */
int hako_queue_push(struct hako_queue *queue, uint16_t head, uint32_t written);

/* Whether the driver wants an interrupt for what was pushed since the last one. */
bool hako_queue_wants_interrupt(struct hako_queue *queue);

/* Copies bytes out of, or into, the front of the buffers and takes them off; false, and nothing done, if too few. */
bool hako_buffers_get(struct hako_buffers *buffers, void *data, uint32_t length);
bool hako_buffers_put(struct hako_buffers *buffers, const void *data, uint32_t length);
/* Takes bytes off the front; off the end, so that `bytes` are left. */
void hako_buffers_skip(struct hako_buffers *buffers, uint32_t length);
void hako_buffers_trim(struct hako_buffers *buffers, uint32_t bytes);
/* Fills all that is left with zeros. */
void hako_buffers_clear(struct hako_buffers *buffers);

#endif
