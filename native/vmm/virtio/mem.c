// SPDX-License-Identifier: Apache-2.0
/*
 * The memory device (VIRTIO 1.2, 5.15): a region of which the guest plugs and unplugs blocks. What is not plugged is
 * not there: devices cannot reach it, the guest can at most read zeros, and the host holds no page for it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/virtio_mem.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "device.h"

#define BLOCK_MIN	(2ull << 20)
#define BLOCKS_MAX	(1u << 18)
#define QUEUE_SIZE	16
#define WORD_BITS	64

struct mem {
	struct hako_virtio virtio;
	uint64_t gpa, size, block_size, requested, plugged;	/* bytes */
	uint32_t memory_slot, block_count;
	uint64_t *blocks;		/* bit set: plugged; hako_memory_at looks at it too */
	uint64_t operations, refusals;
};

static struct mem *mem_of(struct hako_virtio *v)
{
	return hako_container_of(v, struct mem, virtio);
}

static struct hako_region *region_of(const struct mem *m)
{
	struct hako_memory *memory = hako_machine_memory(m->virtio.machine);

	for (uint32_t i = 0; i < memory->count; i++) {
		if (memory->regions[i].slot == m->memory_slot)
			return &memory->regions[i];
	}
	return NULL;
}

static bool block_plugged(const struct mem *m, uint32_t block)
{
	return m->blocks[block / WORD_BITS] >> (block % WORD_BITS) & 1;
}

/* How many of the blocks are plugged. */
static uint32_t blocks_count(const struct mem *m, uint32_t first, uint32_t count)
{
	uint32_t plugged = 0;

	for (uint32_t i = first; i < first + count; i++)
		plugged += block_plugged(m, i);
	return plugged;
}

/* Saved with the machine as long as there is something in it. */
static void size_set(struct mem *m, uint64_t plugged)
{
	struct hako_device_event event = { .slot = m->virtio.slot, .what = HAKO_DEVICE_SIZE, .value = plugged };
	struct hako_region *region = region_of(m);

	m->plugged = plugged;
	region->flags = plugged ? region->flags & ~(uint32_t)HAKO_MEMORY_VOLATILE : region->flags | HAKO_MEMORY_VOLATILE;
	hako_machine_event(m->virtio.machine, HAKO_EVENT_DEVICE, &event, sizeof(event), NULL, 0);
}

/* All of the blocks change their state, or, with an error, none. */
static int blocks_set(struct mem *m, uint32_t first, uint32_t count, bool plug)
{
	uint8_t *host = region_of(m)->host + first * m->block_size;
	uint64_t bytes = count * m->block_size;

	/* Fails when the range would fall into more mappings than the kernel allows. */
	if (mprotect(host, bytes, plug ? PROT_READ | PROT_WRITE : PROT_READ) < 0)
		return -errno;
	if (!plug && madvise(host, bytes, MADV_DONTNEED) < 0)
		return -errno;
	for (uint32_t i = first; i < first + count; i++) {
		if (plug)
			m->blocks[i / WORD_BITS] |= 1ull << (i % WORD_BITS);
		else
			m->blocks[i / WORD_BITS] &= ~(1ull << (i % WORD_BITS));
	}
	return 0;
}

static int blocks_unplug(struct mem *m, uint32_t first, uint32_t count)
{
	int ret;

	/* Other devices may have requests in flight there, or rings. */
	hako_devices_quiesce(m->virtio.machine);
	ret = blocks_set(m, first, count, false);
	hako_devices_resume(m->virtio.machine);
	return ret;
}

/* ---- requests */

static uint16_t plug(struct mem *m, uint32_t first, uint32_t count)
{
	uint64_t bytes = count * m->block_size;

	if (blocks_count(m, first, count))
		return VIRTIO_MEM_RESP_ERROR;
	if (bytes > m->requested || m->plugged > m->requested - bytes)
		return VIRTIO_MEM_RESP_NACK;
	if (blocks_set(m, first, count, true) < 0)
		return VIRTIO_MEM_RESP_BUSY;
	size_set(m, m->plugged + bytes);
	return VIRTIO_MEM_RESP_ACK;
}

static uint16_t unplug(struct mem *m, uint32_t first, uint32_t count)
{
	if (blocks_count(m, first, count) != count)
		return VIRTIO_MEM_RESP_ERROR;
	if (blocks_unplug(m, first, count) < 0)
		return VIRTIO_MEM_RESP_BUSY;
	size_set(m, m->plugged - count * m->block_size);
	return VIRTIO_MEM_RESP_ACK;
}

static uint16_t unplug_all(struct mem *m)
{
	if (m->plugged && blocks_unplug(m, 0, m->block_count) < 0)
		return VIRTIO_MEM_RESP_BUSY;
	size_set(m, 0);
	return VIRTIO_MEM_RESP_ACK;
}

static uint16_t state(const struct mem *m, uint32_t first, uint32_t count)
{
	uint32_t plugged = blocks_count(m, first, count);

	if (plugged == count)
		return VIRTIO_MEM_STATE_PLUGGED;
	return plugged ? VIRTIO_MEM_STATE_MIXED : VIRTIO_MEM_STATE_UNPLUGGED;
}

static struct virtio_mem_resp request_handle(struct mem *m, const struct virtio_mem_req *request)
{
	/* plug, unplug and state have the same layout. */
	uint64_t offset = request->u.plug.addr - m->gpa;
	uint32_t count = request->u.plug.nb_blocks;
	struct virtio_mem_resp answer = { .type = VIRTIO_MEM_RESP_ERROR };
	uint32_t first;

	if (request->type == VIRTIO_MEM_REQ_UNPLUG_ALL) {
		answer.type = unplug_all(m);
		return answer;
	}
	if (request->u.plug.addr < m->gpa || offset >= m->size || offset % m->block_size || !count ||
	    count > (m->size - offset) / m->block_size)
		return answer;
	first = (uint32_t)(offset / m->block_size);
	switch (request->type) {
	case VIRTIO_MEM_REQ_PLUG:
		answer.type = plug(m, first, count);
		break;
	case VIRTIO_MEM_REQ_UNPLUG:
		answer.type = unplug(m, first, count);
		break;
	case VIRTIO_MEM_REQ_STATE:
		answer.type = VIRTIO_MEM_RESP_ACK;
		answer.u.state.state = state(m, first, count);
	}
	return answer;
}

/* Whether the buffers are there still: they may have lain in what was just unplugged. */
static bool buffers_reachable(const struct mem *m, const struct hako_buffers *buffers)
{
	const struct hako_region *region = region_of(m);

	for (uint32_t i = 0; i < buffers->count; i++) {
		uint64_t offset = (uintptr_t)buffers->iov[i].iov_base - (uintptr_t)region->host;

		if (offset < region->size &&
		    !hako_memory_at(m->virtio.memory, region->gpa + offset, buffers->iov[i].iov_len, true))
			return false;
	}
	return true;
}

static int mem_notify(struct hako_virtio *v, uint32_t queue)
{
	struct mem *m = mem_of(v);
	struct hako_queue *q = &v->queues[queue];
	struct virtio_mem_resp answer;
	struct virtio_mem_req request;
	struct hako_chain chain;
	int ret = hako_queue_pop(q, v->memory, &chain);

	if (ret <= 0)
		return ret;
	hako_buffers_trim(&chain.write, sizeof(answer));
	if (!hako_buffers_get(&chain.read, &request, sizeof(request)) || chain.write.bytes < sizeof(answer))
		return -EPROTO;
	answer = request_handle(m, &request);
	m->operations++;
	m->refusals += answer.type != VIRTIO_MEM_RESP_ACK;
	if (!buffers_reachable(m, &chain.write))
		return -EPROTO;
	hako_buffers_put(&chain.write, &answer, sizeof(answer));
	hako_queue_push(q, chain.head, sizeof(answer));
	hako_virtio_signal_queue(v, queue);
	/* One at a time: they may take long. */
	hako_virtio_kick(v, queue);
	return 0;
}

/* ---- life */

static bool config_valid(const struct hako_mem *config)
{
	uint64_t block = config->block_size;

	return block >= BLOCK_MIN && !(block & (block - 1)) && config->size && config->size % block == 0 &&
	       config->gpa % block == 0 && config->size / block <= BLOCKS_MAX && config->requested % block == 0 &&
	       config->requested <= config->size && !config->reserved;
}

static int mem_open(struct hako_virtio *v, const struct hako_device_request *request)
{
	struct mem *m = mem_of(v);
	const struct hako_mem *config = request->config;
	struct hako_region *region, wanted = {
		.gpa = config->gpa,
		.size = config->size,
		.slot = config->memory_slot,
		.flags = HAKO_MEMORY_VOLATILE,
	};
	int ret;

	if (request->fd_count || !config_valid(config))
		return -EINVAL;
	m->gpa = config->gpa;
	m->size = config->size;
	m->block_size = config->block_size;
	m->requested = config->requested;
	m->memory_slot = config->memory_slot;
	m->block_count = (uint32_t)(m->size / m->block_size);
	m->blocks = calloc((m->block_count + WORD_BITS - 1) / WORD_BITS, sizeof(m->blocks[0]));
	if (!m->blocks)
		return -ENOMEM;
	region = hako_memory_add(hako_machine_memory(v->machine), &wanted, -1, 0, &ret);
	if (!region) {
		free(m->blocks);
		return ret;
	}
	region->blocks = m->blocks;
	region->block_shift = (uint32_t)__builtin_ctzll(m->block_size);
	ret = blocks_set(m, 0, m->block_count, false);
	if (ret < 0) {
		hako_memory_remove(hako_machine_memory(v->machine), m->memory_slot);
		free(m->blocks);
		return ret;
	}
	v->queue_count = 1;
	v->config_size = sizeof(struct virtio_mem_config);
	v->features = 1ull << VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE;
	/* A driver that does not know it reads memory that is not plugged, and may write to it. */
	v->required = v->features;
	return 0;
}

static void mem_close(struct hako_virtio *v)
{
	struct mem *m = mem_of(v);

	hako_memory_remove(hako_machine_memory(v->machine), m->memory_slot);
	free(m->blocks);
}

static void mem_config_read(struct hako_virtio *v, uint32_t offset, void *data, uint32_t length)
{
	const struct mem *m = mem_of(v);
	struct virtio_mem_config config = {
		.block_size = m->block_size,
		.addr = m->gpa,
		.region_size = m->size,
		.usable_region_size = m->size,
		.plugged_size = m->plugged,
		.requested_size = m->requested,
	};

	memcpy(data, (const uint8_t *)&config + offset, length);
}

static int mem_update(struct hako_virtio *v, const void *update, int *fds, uint32_t fd_count)
{
	struct mem *m = mem_of(v);
	const struct hako_mem *config = update;

	(void)fds;
	if (fd_count || config->requested % m->block_size || config->requested > m->size)
		return -EINVAL;
	m->requested = config->requested;
	hako_virtio_signal_config(v);
	return 0;
}

static void mem_save(struct hako_virtio *v, struct hako_bytes *bytes)
{
	const struct mem *m = mem_of(v);

	hako_bytes_put(bytes, &m->block_size, sizeof(m->block_size));
	hako_bytes_put(bytes, &m->block_count, sizeof(m->block_count));
	for (uint32_t i = 0; i < m->block_count; i += WORD_BITS)
		hako_bytes_put(bytes, &m->blocks[i / WORD_BITS], sizeof(m->blocks[0]));
}

static int mem_restore(struct hako_virtio *v, struct hako_bytes *bytes)
{
	struct mem *m = mem_of(v);
	uint64_t block_size, plugged = 0;
	uint32_t block_count;

	hako_bytes_get(bytes, &block_size, sizeof(block_size));
	hako_bytes_get(bytes, &block_count, sizeof(block_count));
	if (bytes->failed || block_size != m->block_size || block_count != m->block_count)
		return -EINVAL;
	for (uint32_t i = 0; i < m->block_count; i += WORD_BITS) {
		uint64_t word;

		hako_bytes_get(bytes, &word, sizeof(word));
		for (uint32_t n = i; n < m->block_count && word; n++, word >>= 1) {
			int ret = word & 1 ? blocks_set(m, n, 1, true) : 0;

			if (ret < 0)
				return ret;
			plugged += word & 1 ? m->block_size : 0;
		}
	}
	size_set(m, plugged);
	return 0;
}

static void mem_metrics(struct hako_virtio *v)
{
	const struct mem *m = mem_of(v);

	hako_metric_add(v->machine, v->slot, "plugged_bytes", m->plugged);
	hako_metric_add(v->machine, v->slot, "requested_bytes", m->requested);
	hako_metric_add(v->machine, v->slot, "operations", m->operations);
	hako_metric_add(v->machine, v->slot, "refusals", m->refusals);
}

const struct hako_virtio_ops hako_virtio_mem = {
	.kind = HAKO_KIND_MEM,
	.name = "mem",
	.instance_size = sizeof(struct mem),
	.config_size = sizeof(struct hako_mem),
	.update_size = sizeof(struct hako_mem),
	.queue_size = QUEUE_SIZE,
	.open = mem_open,
	.close = mem_close,
	.notify = mem_notify,
	.config_read = mem_config_read,
	.save = mem_save,
	.restore = mem_restore,
	.update = mem_update,
	.metrics = mem_metrics,
};
