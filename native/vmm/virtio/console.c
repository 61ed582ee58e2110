// SPDX-License-Identifier: Apache-2.0
/* The console device (VIRTIO 1.2, 5.3) with one port: queue 0 to the guest, queue 1 from it. */
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_console.h>
#include <string.h>
#include <unistd.h>

#include "device.h"

#define QUEUE_SIZE	64
#define CHAINS_A_ROUND	64

enum { RECEIVE, TRANSMIT };

struct console {
	struct hako_virtio virtio;
	struct hako_source input, output;	/* in the loop while they are waited for */
	bool input_waiting, output_waiting;
	uint32_t partial;		/* how much of the next chain of the guest is already written */
	uint16_t columns, rows;
	uint64_t received, transmitted, lost;	/* bytes */
};

static struct console *console_of(struct hako_virtio *v)
{
	return hako_container_of(v, struct console, virtio);
}

static void source_wait(struct console *c, struct hako_source *source, bool *waiting, uint32_t events)
{
	if (*waiting == (events != 0) || source->fd < 0)
		return;
	if (!events)
		hako_source_remove(c->virtio.loop, source);
	else if (hako_source_add(c->virtio.loop, source, events) < 0)
		return;
	*waiting = events != 0;
}

/* Takes what one read gives into the next chain. */
static int input_receive(struct console *c)
{
	struct hako_queue *q = &c->virtio.queues[RECEIVE];
	struct hako_chain chain;
	int ret = hako_queue_pop(q, c->virtio.memory, &chain);
	ssize_t length;

	if (ret <= 0) {
		/* No room: the driver tells when there is. */
		source_wait(c, &c->input, &c->input_waiting, 0);
		return ret;
	}
	if (chain.write.bytes == 0)
		return -EPROTO;
	length = readv(c->input.fd, chain.write.iov, (int)chain.write.count);
	if (length > 0) {
		c->received += (uint64_t)length;
		hako_queue_push(q, chain.head, (uint32_t)length);
		hako_virtio_signal_queue(&c->virtio, RECEIVE);
		return 0;
	}
	hako_queue_unpop(q);
	if (length == 0 || (errno != EAGAIN && errno != EINTR)) {
		/* Nobody writes to it any more. */
		source_wait(c, &c->input, &c->input_waiting, 0);
		close(c->input.fd);
		c->input.fd = -1;
	}
	return 0;
}

static void input_handle(struct hako_source *source, uint32_t events)
{
	struct console *c = hako_container_of(source, struct console, input);
	int ret;

	(void)events;
	if (!hako_virtio_running(&c->virtio)) {
		source_wait(c, &c->input, &c->input_waiting, 0);
		return;
	}
	ret = input_receive(c);
	if (ret < 0)
		hako_virtio_break(&c->virtio, ret);
}

/* Writes the chain out; false: it has to wait, with `partial` bytes of it already written. */
static bool output_write(struct console *c, struct hako_chain *chain)
{
	ssize_t length;

	hako_buffers_skip(&chain->read, c->partial);
	length = writev(c->output.fd, chain->read.iov, (int)chain->read.count);
	if (length < 0 && errno == EAGAIN)
		return false;
	if (length >= 0) {
		c->transmitted += (uint64_t)length;
		c->partial += (uint32_t)length;
		if ((uint32_t)length < chain->read.bytes)
			return false;
	} else {
		/* The reader is gone (EPIPE), the disk is full: no reason to stop the guest. */
		c->lost += chain->read.bytes;
	}
	c->partial = 0;
	return true;
}

static int output_transmit(struct console *c)
{
	struct hako_queue *q = &c->virtio.queues[TRANSMIT];
	struct hako_chain chain;
	int ret = 1;

	for (int n = 0; n < CHAINS_A_ROUND; n++) {
		ret = hako_queue_pop(q, c->virtio.memory, &chain);
		if (ret <= 0)
			break;
		if (!output_write(c, &chain)) {
			hako_queue_unpop(q);
			source_wait(c, &c->output, &c->output_waiting, EPOLLOUT);
			break;
		}
		hako_queue_push(q, chain.head, 0);
	}
	hako_virtio_signal_queue(&c->virtio, TRANSMIT);
	if (ret > 0 && !c->output_waiting)
		hako_virtio_kick(&c->virtio, TRANSMIT);
	return ret < 0 ? ret : 0;
}

static void output_handle(struct hako_source *source, uint32_t events)
{
	struct console *c = hako_container_of(source, struct console, output);

	(void)events;
	source_wait(c, &c->output, &c->output_waiting, 0);
	if (hako_virtio_running(&c->virtio))
		hako_virtio_kick(&c->virtio, TRANSMIT);
}

static int console_notify(struct hako_virtio *v, uint32_t queue)
{
	struct console *c = console_of(v);

	if (queue == TRANSMIT)
		return c->output_waiting ? 0 : output_transmit(c);
	source_wait(c, &c->input, &c->input_waiting, EPOLLIN);
	return 0;
}

static void console_stop(struct hako_virtio *v)
{
	struct console *c = console_of(v);

	source_wait(c, &c->input, &c->input_waiting, 0);
	source_wait(c, &c->output, &c->output_waiting, 0);
}

static void console_reset(struct hako_virtio *v)
{
	console_stop(v);
	console_of(v)->partial = 0;
}

static void console_save(struct hako_virtio *v, struct hako_bytes *bytes)
{
	hako_bytes_put(bytes, &console_of(v)->partial, sizeof(uint32_t));
}

static int console_restore(struct hako_virtio *v, struct hako_bytes *bytes)
{
	hako_bytes_get(bytes, &console_of(v)->partial, sizeof(uint32_t));
	return 0;
}

static int nonblocking_set(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	return flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ? -errno : 0;
}

static int console_open(struct hako_virtio *v, const struct hako_device_request *request)
{
	struct console *c = console_of(v);
	const struct hako_console *config = request->config;

	if (request->fd_count < 1 || request->fd_count > 2)
		return -EINVAL;
	for (uint32_t i = 0; i < request->fd_count; i++) {
		int ret = nonblocking_set(request->fds[i]);

		if (ret < 0)
			return ret;
	}
	c->output = (struct hako_source){ .fd = request->fds[0], .handle = output_handle };
	c->input = (struct hako_source){ .fd = -1, .handle = input_handle };
	request->fds[0] = -1;
	if (request->fd_count == 2) {
		c->input.fd = request->fds[1];
		request->fds[1] = -1;
	}
	c->columns = (uint16_t)config->columns;
	c->rows = (uint16_t)config->rows;
	v->queue_count = 2;
	v->config_size = sizeof(struct virtio_console_config);
	v->features = c->columns && c->rows ? 1ull << VIRTIO_CONSOLE_F_SIZE : 0;
	return 0;
}

static void console_close(struct hako_virtio *v)
{
	struct console *c = console_of(v);

	close(c->output.fd);
	if (c->input.fd >= 0)
		close(c->input.fd);
}

static void console_config_read(struct hako_virtio *v, uint32_t offset, void *data, uint32_t length)
{
	const struct console *c = console_of(v);
	struct virtio_console_config config = { .cols = c->columns, .rows = c->rows };

	memcpy(data, (const uint8_t *)&config + offset, length);
}

static int console_update(struct hako_virtio *v, const void *update, int *fds, uint32_t fd_count)
{
	struct console *c = console_of(v);
	const struct hako_console *config = update;

	(void)fds;
	if (fd_count || !(v->features >> VIRTIO_CONSOLE_F_SIZE & 1))
		return -EINVAL;
	c->columns = (uint16_t)config->columns;
	c->rows = (uint16_t)config->rows;
	hako_virtio_signal_config(v);
	return 0;
}

static void console_metrics(struct hako_virtio *v)
{
	const struct console *c = console_of(v);

	hako_metric_add(v->machine, v->slot, "received_bytes", c->received);
	hako_metric_add(v->machine, v->slot, "transmitted_bytes", c->transmitted);
	hako_metric_add(v->machine, v->slot, "lost_bytes", c->lost);
}

const struct hako_virtio_ops hako_virtio_console = {
	.kind = HAKO_KIND_CONSOLE,
	.name = "console",
	.instance_size = sizeof(struct console),
	.config_size = sizeof(struct hako_console),
	.update_size = sizeof(struct hako_console),
	.queue_size = QUEUE_SIZE,
	.open = console_open,
	.close = console_close,
	.reset = console_reset,
	.notify = console_notify,
	.config_read = console_config_read,
	.quiesce = console_stop,
	.save = console_save,
	.restore = console_restore,
	.update = console_update,
	.metrics = console_metrics,
};
