// SPDX-License-Identifier: Apache-2.0
#include "queue.h"

#include <errno.h>
#include <linux/virtio_ring.h>
#include <string.h>

/* Copies out of memory that the guest changes at will: the compiler must not read it a second time. */
static void guest_copy(void *to, const void *from, size_t length)
{
	memcpy(to, from, length);
	__asm__ volatile("" : : : "memory");
}

static uint16_t half_read(const uint16_t *place)
{
	return __atomic_load_n(place, __ATOMIC_ACQUIRE);
}

static void half_write(uint16_t *place, uint16_t value)
{
	__atomic_store_n(place, value, __ATOMIC_RELEASE);
}

/* The two places that come with VIRTIO_F_EVENT_IDX lie behind the rings (2.7.10). */
static const uint16_t *used_event(const struct hako_queue *q)
{
	return &((const struct vring_avail *)q->avail_host)->ring[q->size];
}

static uint16_t *avail_event(const struct hako_queue *q)
{
	return (uint16_t *)&((struct vring_used *)q->used_host)->ring[q->size];
}

static int rings_find(struct hako_queue *q, const struct hako_memory *memory)
{
	uint64_t size = q->size;

	q->desc_host = hako_memory_at(memory, q->desc, size * sizeof(struct vring_desc), false);
	q->avail_host = hako_memory_at(memory, q->avail, 6 + size * 2, false);
	q->used_host = hako_memory_at(memory, q->used, 6 + size * sizeof(struct vring_used_elem), true);
	if (q->desc_host && q->avail_host && q->used_host)
		return 0;
	q->desc_host = NULL;
	q->avail_host = NULL;
	q->used_host = NULL;
	return -EFAULT;
}

int hako_queue_activate(struct hako_queue *q, const struct hako_memory *memory, bool event_idx)
{
	q->desc_host = NULL;
	if (!q->size || q->size > q->max_size || (q->size & (q->size - 1)))
		return -EINVAL;
	if (q->desc % 16 || q->avail % 2 || q->used % 4)
		return -EINVAL;
	q->event_idx = event_idx;
	return rings_find(q, memory);
}

void hako_queue_reset(struct hako_queue *q)
{
	*q = (struct hako_queue){ .max_size = q->max_size, .size = q->max_size };
}

/* Adds one buffer to the chain. */
static int buffer_add(struct hako_chain *chain, const struct hako_memory *memory, const struct vring_desc *desc)
{
	bool write = desc->flags & VRING_DESC_F_WRITE;
	struct hako_buffers *side = write ? &chain->write : &chain->read;
	uint32_t count = chain->read.count + chain->write.count;
	void *host = hako_memory_at(memory, desc->addr, desc->len, write);

	if (!host || count == HAKO_CHAIN_MAX || (!write && chain->write.count) ||
	    __builtin_add_overflow(side->bytes, desc->len, &side->bytes))
		return -EPROTO;
	if (!side->count++)
		side->iov = &chain->iov[count];
	chain->iov[count] = (struct iovec){ .iov_base = host, .iov_len = desc->len };
	return 0;
}

static int chain_walk(const struct hako_queue *q, const struct hako_memory *memory, struct hako_chain *chain)
{
	const struct vring_desc *table = q->desc_host;
	uint32_t size = q->size, index = chain->head, steps = 0;
	bool indirect = false;

	chain->read = chain->write = (struct hako_buffers){ .iov = chain->iov };
	for (;;) {
		struct vring_desc desc;
		int ret;

		/* As many steps as there are descriptors: one more, and it is a loop. */
		if (index >= size || steps++ == size)
			return -EPROTO;
		guest_copy(&desc, &table[index], sizeof(desc));
		if (desc.flags & VRING_DESC_F_INDIRECT) {
			if (indirect || (desc.flags & VRING_DESC_F_NEXT) || desc.len % sizeof(desc))
				return -EPROTO;
			table = hako_memory_at(memory, desc.addr, desc.len, false);
			if (!table)
				return -EPROTO;
			indirect = true;
			size = desc.len / sizeof(desc);
			index = 0;
			steps = 0;
			continue;
		}
		ret = buffer_add(chain, memory, &desc);
		if (ret < 0)
			return ret;
		if (!(desc.flags & VRING_DESC_F_NEXT))
			return 0;
		index = desc.next;
	}
}

/* How many chains wait; asks to be told of the next one when there is none. */
static uint16_t avail_count(struct hako_queue *q)
{
	const struct vring_avail *avail = q->avail_host;
	uint16_t count = (uint16_t)(half_read(&avail->idx) - q->next_avail);

	if (count || !q->event_idx)
		return count;
	half_write(avail_event(q), q->next_avail);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return (uint16_t)(half_read(&avail->idx) - q->next_avail);
}

uint16_t hako_queue_ask(struct hako_queue *q)
{
	const struct vring_avail *avail = q->avail_host;

	if (!avail)
		return 0;
	if (q->event_idx)
		half_write(avail_event(q), half_read(&avail->idx));
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return half_read(&avail->idx);
}

int hako_queue_pop(struct hako_queue *q, const struct hako_memory *memory, struct hako_chain *chain)
{
	const struct vring_avail *avail = q->avail_host;
	uint16_t count;
	int ret;

	if (!avail)
		return 0;
	count = avail_count(q);
	if (count == 0)
		return 0;
	if (count > q->size)
		return -EPROTO;
	chain->head = half_read(&avail->ring[q->next_avail & (q->size - 1)]);
	ret = chain_walk(q, memory, chain);
	if (ret < 0)
		return ret;
	q->next_avail++;
	return 1;
}

void hako_queue_unpop(struct hako_queue *q)
{
	q->next_avail--;
}

int hako_queue_push(struct hako_queue *q, uint16_t head, uint32_t written)
{
	struct vring_used *used = q->used_host;

	if (!used || head >= q->size)
		return -EPROTO;
	used->ring[q->next_used & (q->size - 1)] = (struct vring_used_elem){ .id = head, .len = written };
	half_write(&used->idx, ++q->next_used);
	return 0;
}

bool hako_queue_wants_interrupt(struct hako_queue *q)
{
	const struct vring_avail *avail = q->avail_host;
	uint16_t last = q->signalled_used;
	bool known = q->signalled_valid;

	if (!avail)
		return false;
	/* What was pushed must be seen before the driver's wish is looked at. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	q->signalled_used = q->next_used;
	q->signalled_valid = true;
	if (known && last == q->next_used)
		return false;
	if (!q->event_idx)
		return !(half_read(&avail->flags) & VRING_AVAIL_F_NO_INTERRUPT);
	return !known || vring_need_event(half_read(used_event(q)), q->next_used, last);
}

/* Copies to (or from, or nothing) and drops what is used up of the front. */
static void buffers_take(struct hako_buffers *b, uint8_t *out, const uint8_t *in, uint32_t length)
{
	b->bytes -= length;
	while (length) {
		struct iovec *iov = b->iov;
		uint32_t part = length < iov->iov_len ? length : (uint32_t)iov->iov_len;

		if (out) {
			guest_copy(out, iov->iov_base, part);
			out += part;
		} else if (in) {
			memcpy(iov->iov_base, in, part);
			in += part;
		}
		iov->iov_base = (uint8_t *)iov->iov_base + part;
		iov->iov_len -= part;
		length -= part;
		if (!iov->iov_len) {
			b->iov++;
			b->count--;
		}
	}
}

bool hako_buffers_get(struct hako_buffers *b, void *data, uint32_t length)
{
	if (length > b->bytes)
		return false;
	buffers_take(b, data, NULL, length);
	return true;
}

bool hako_buffers_put(struct hako_buffers *b, const void *data, uint32_t length)
{
	if (length > b->bytes)
		return false;
	buffers_take(b, NULL, data, length);
	return true;
}

void hako_buffers_skip(struct hako_buffers *b, uint32_t length)
{
	buffers_take(b, NULL, NULL, length < b->bytes ? length : b->bytes);
}

void hako_buffers_trim(struct hako_buffers *b, uint32_t bytes)
{
	while (b->bytes > bytes) {
		struct iovec *last = &b->iov[b->count - 1];
		uint32_t surplus = b->bytes - bytes;

		if (surplus < last->iov_len) {
			last->iov_len -= surplus;
			b->bytes = bytes;
			return;
		}
		b->bytes -= (uint32_t)last->iov_len;
		b->count--;
	}
}

void hako_buffers_clear(struct hako_buffers *b)
{
	for (uint32_t i = 0; i < b->count; i++)
		memset(b->iov[i].iov_base, 0, b->iov[i].iov_len);
	b->count = 0;
	b->bytes = 0;
}
