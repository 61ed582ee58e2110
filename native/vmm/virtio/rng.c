// SPDX-License-Identifier: Apache-2.0
/* The entropy device (VIRTIO 1.2, 5.4): one queue of buffers that are filled with random bytes. */
#include <errno.h>
#include <sys/random.h>

#include "device.h"

#define QUEUE_SIZE		64
#define REQUEST_BYTES_MAX	4096	/* more is not given for one request, however much is asked for */
#define REQUESTS_A_ROUND	16

struct rng {
	struct hako_virtio virtio;
	uint64_t operations, bytes, errors;
};

static struct rng *rng_of(struct hako_virtio *v)
{
	return hako_container_of(v, struct rng, virtio);
}

/* How many bytes of the buffers were filled. */
static uint32_t buffers_fill(struct rng *r, struct hako_buffers *buffers)
{
	uint32_t filled = 0;

	hako_buffers_trim(buffers, REQUEST_BYTES_MAX);
	for (uint32_t i = 0; i < buffers->count; i++) {
		ssize_t ret = getrandom(buffers->iov[i].iov_base, buffers->iov[i].iov_len, GRND_NONBLOCK);

		if (ret < 0)
			r->errors++;
		if (ret > 0)
			filled += (uint32_t)ret;
		if (ret != (ssize_t)buffers->iov[i].iov_len)
			break;
	}
	return filled;
}

static int rng_notify(struct hako_virtio *v, uint32_t queue)
{
	struct rng *r = rng_of(v);
	struct hako_chain chain;

	for (int n = 0; n < REQUESTS_A_ROUND; n++) {
		int ret = hako_queue_pop(&v->queues[queue], v->memory, &chain);
		uint32_t filled;

		if (ret < 0)
			return ret;
		if (ret == 0) {
			if (n)
				hako_virtio_signal_queue(v, queue);
			return 0;
		}
		filled = buffers_fill(r, &chain.write);
		r->operations++;
		r->bytes += filled;
		hako_queue_push(&v->queues[queue], chain.head, filled);
	}
	hako_virtio_signal_queue(v, queue);
	hako_virtio_kick(v, queue);
	return 0;
}

static int rng_open(struct hako_virtio *v, const struct hako_device_request *request)
{
	if (request->fd_count)
		return -EINVAL;
	v->queue_count = 1;
	return 0;
}

static void rng_close(struct hako_virtio *v)
{
	(void)v;
}

static void rng_metrics(struct hako_virtio *v)
{
	const struct rng *r = rng_of(v);

	hako_metric_add(v->machine, v->slot, "operations", r->operations);
	hako_metric_add(v->machine, v->slot, "bytes", r->bytes);
	hako_metric_add(v->machine, v->slot, "errors", r->errors);
}

const struct hako_virtio_ops hako_virtio_rng = {
	.kind = HAKO_KIND_RNG,
	.name = "rng",
	.instance_size = sizeof(struct rng),
	.queue_size = QUEUE_SIZE,
	.open = rng_open,
	.close = rng_close,
	.notify = rng_notify,
	.metrics = rng_metrics,
};
