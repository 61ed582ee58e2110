// SPDX-License-Identifier: Apache-2.0
/* The memory balloon (VIRTIO 1.2, 5.5) with free page reporting. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/virtio_balloon.h>
#include <string.h>

#include "device.h"
#include "discard.h"

#define QUEUE_SIZE	128
#define PAGE_SHIFT	VIRTIO_BALLOON_PFN_SHIFT
/* Page numbers in one request; Linux sends 256. */
#define PAGES_MAX	1024
#define CHAINS_A_ROUND	32

enum { INFLATE, DEFLATE, REPORT };

struct balloon {
	struct hako_virtio virtio;
	uint64_t target;		/* pages */
	uint32_t actual;		/* pages, as the driver says */
	uint64_t inflated, deflated, reported, discard_errors;	/* pages */
};

static struct balloon *balloon_of(struct hako_virtio *v)
{
	return hako_container_of(v, struct balloon, virtio);
}

static int pages_discard(struct balloon *b, uint64_t first, uint64_t count)
{
	int ret = hako_discard_guest(b->virtio.memory, first << PAGE_SHIFT, count << PAGE_SHIFT);

	/* Addresses that are no memory break the rules; that the kernel cannot give a page back does not. */
	if (ret == -EFAULT)
		return -EPROTO;
	b->discard_errors += ret < 0 ? count : 0;
	return 0;
}

/* The guest gives pages up: runs of them are discarded at once. */
static int chain_inflate(struct balloon *b, struct hako_buffers *numbers)
{
	uint64_t first = 0, count = 0;
	uint32_t page;

	if (numbers->bytes > PAGES_MAX * sizeof(page))
		return -EPROTO;
	while (hako_buffers_get(numbers, &page, sizeof(page))) {
		int ret;

		b->inflated++;
		if (count && page == first + count) {
			count++;
			continue;
		}
		if (count && page + 1ull == first) {
			/* Linux takes pages from the top of a range downwards. */
			first--;
			count++;
			continue;
		}
		ret = count ? pages_discard(b, first, count) : 0;
		if (ret < 0)
			return ret;
		first = page;
		count = 1;
	}
	return count ? pages_discard(b, first, count) : 0;
}

/* Free pages of the guest, which it does not touch until it has the chain back. */
static int chain_report(struct balloon *b, const struct hako_buffers *pages)
{
	for (uint32_t i = 0; i < pages->count; i++) {
		uint64_t count = pages->iov[i].iov_len >> PAGE_SHIFT;

		b->reported += count;
		if (hako_discard_host(b->virtio.memory, pages->iov[i].iov_base, pages->iov[i].iov_len) < 0)
			b->discard_errors += count;
	}
	return 0;
}

static int chain_handle(struct balloon *b, uint32_t queue, struct hako_chain *chain)
{
	switch (queue) {
	case INFLATE:
		return chain_inflate(b, &chain->read);
	case DEFLATE:
		/* The pages come back by themselves when they are touched. */
		b->deflated += chain->read.bytes / sizeof(uint32_t);
		return 0;
	default:
		return chain_report(b, &chain->write);
	}
}

static int balloon_notify(struct hako_virtio *v, uint32_t queue)
{
	struct hako_queue *q = &v->queues[queue];
	struct hako_chain chain;
	int ret = 1;

	for (int n = 0; n < CHAINS_A_ROUND; n++) {
		ret = hako_queue_pop(q, v->memory, &chain);
		if (ret <= 0)
			break;
		ret = chain_handle(balloon_of(v), queue, &chain);
		if (ret < 0)
			return ret;
		hako_queue_push(q, chain.head, 0);
		ret = 1;
	}
	hako_virtio_signal_queue(v, queue);
	if (ret > 0)
		hako_virtio_kick(v, queue);
	return ret < 0 ? ret : 0;
}

static int target_set(struct balloon *b, uint64_t bytes)
{
	if (bytes >> PAGE_SHIFT > UINT32_MAX)
		return -EINVAL;
	b->target = bytes >> PAGE_SHIFT;
	return 0;
}

static int balloon_open(struct hako_virtio *v, const struct hako_device_request *request)
{
	struct balloon *b = balloon_of(v);
	const struct hako_balloon *config = request->config;
	uint32_t flags = request->add->flags;

	if (request->fd_count)
		return -EINVAL;
	v->queue_count = flags & HAKO_BALLOON_REPORTING ? 3 : 2;
	/* num_pages and actual; the rest belongs to features that are not offered. */
	v->config_size = offsetof(struct virtio_balloon_config, free_page_hint_cmd_id);
	v->features = (flags & HAKO_BALLOON_DEFLATE_ON_OOM ? 1ull << VIRTIO_BALLOON_F_DEFLATE_ON_OOM : 0) |
		      (flags & HAKO_BALLOON_REPORTING ? 1ull << VIRTIO_BALLOON_F_REPORTING : 0);
	return target_set(b, config->target);
}

static void balloon_close(struct hako_virtio *v)
{
	(void)v;
}

static void balloon_reset(struct hako_virtio *v)
{
	balloon_of(v)->actual = 0;
}

static void balloon_config_read(struct hako_virtio *v, uint32_t offset, void *data, uint32_t length)
{
	const struct balloon *b = balloon_of(v);
	struct virtio_balloon_config config = { .num_pages = (uint32_t)b->target, .actual = b->actual };

	memcpy(data, (const uint8_t *)&config + offset, length);
}

static void balloon_config_write(struct hako_virtio *v, uint32_t offset, const void *data, uint32_t length)
{
	struct balloon *b = balloon_of(v);
	struct hako_device_event event = { .slot = v->slot, .what = HAKO_DEVICE_SIZE };

	if (offset != offsetof(struct virtio_balloon_config, actual) || length != sizeof(b->actual))
		return;
	memcpy(&b->actual, data, sizeof(b->actual));
	event.value = (uint64_t)b->actual << PAGE_SHIFT;
	hako_machine_event(v->machine, HAKO_EVENT_DEVICE, &event, sizeof(event), NULL, 0);
}

static void balloon_save(struct hako_virtio *v, struct hako_bytes *bytes)
{
	hako_bytes_put(bytes, &balloon_of(v)->actual, sizeof(uint32_t));
}

static int balloon_restore(struct hako_virtio *v, struct hako_bytes *bytes)
{
	hako_bytes_get(bytes, &balloon_of(v)->actual, sizeof(uint32_t));
	return 0;
}

static int balloon_update(struct hako_virtio *v, const void *update, int *fds, uint32_t fd_count)
{
	const struct hako_balloon *config = update;
	int ret;

	(void)fds;
	if (fd_count)
		return -EINVAL;
	ret = target_set(balloon_of(v), config->target);
	if (ret == 0)
		hako_virtio_signal_config(v);
	return ret;
}

static void balloon_metrics(struct hako_virtio *v)
{
	const struct balloon *b = balloon_of(v);

	hako_metric_add(v->machine, v->slot, "target_bytes", b->target << PAGE_SHIFT);
	hako_metric_add(v->machine, v->slot, "actual_bytes", (uint64_t)b->actual << PAGE_SHIFT);
	hako_metric_add(v->machine, v->slot, "inflated_bytes", b->inflated << PAGE_SHIFT);
	hako_metric_add(v->machine, v->slot, "deflated_bytes", b->deflated << PAGE_SHIFT);
	hako_metric_add(v->machine, v->slot, "reported_bytes", b->reported << PAGE_SHIFT);
	hako_metric_add(v->machine, v->slot, "discard_errors", b->discard_errors);
}

const struct hako_virtio_ops hako_virtio_balloon = {
	.kind = HAKO_KIND_BALLOON,
	.name = "balloon",
	.instance_size = sizeof(struct balloon),
	.config_size = sizeof(struct hako_balloon),
	.update_size = sizeof(struct hako_balloon),
	.queue_size = QUEUE_SIZE,
	.open = balloon_open,
	.close = balloon_close,
	.reset = balloon_reset,
	.notify = balloon_notify,
	.config_read = balloon_config_read,
	.config_write = balloon_config_write,
	.save = balloon_save,
	.restore = balloon_restore,
	.update = balloon_update,
	.metrics = balloon_metrics,
};
