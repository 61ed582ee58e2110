// SPDX-License-Identifier: Apache-2.0
/* The host's side: clients of the listening socket, readiness of the streams' sockets, deadlines. */
#define _GNU_SOURCE
#include "vsock.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S	1000000000ull
#define TICK_NS		(NS_PER_S / 2)
/* How long a client may take to say its line, and a guest to answer. */
#define GREETING_NS	(5 * NS_PER_S)
#define ANSWER_NS	(5 * NS_PER_S)
#define ACCEPTS_A_ROUND	16
/* Ports of clients; below it are those that listen. */
#define PORT_FIRST	(1u << 30)

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

static void timer_start(struct hako_vsock_device *d)
{
	if (!d->timing)
		hako_timer_set(d->timer.fd, TICK_NS);
	d->timing = true;
}

static void deadline_set(struct hako_vsock_stream *s, uint64_t after)
{
	s->deadline = now_ns() + after;
	timer_start(s->device);
}

/* The port in "CONNECT <port>\n"; -1: that is no such line. */
static int64_t line_parse(const char *line, uint32_t length)
{
	static const char word[] = "CONNECT ";
	uint32_t at = sizeof(word) - 1;
	int64_t port = 0;

	if (length <= at + 1 || memcmp(line, word, at))
		return -1;
	for (; at < length - 1; at++) {
		if (line[at] < '0' || line[at] > '9')
			return -1;
		port = port * 10 + (line[at] - '0');
		if (port > UINT32_MAX)
			return -1;
	}
	return port;
}

/* Reads the line byte by byte and not further: what follows is for the guest. */
static void greeting_read(struct hako_vsock_stream *s)
{
	while (s->line_length < sizeof(s->line)) {
		struct iovec iov = { .iov_base = &s->line[s->line_length], .iov_len = 1 };
		struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };
		ssize_t ret = recvmsg(s->source.fd, &message, MSG_DONTWAIT);
		int64_t port;

		if (ret < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (ret <= 0)
			break;
		if (s->line[s->line_length++] != '\n')
			continue;
		port = line_parse(s->line, s->line_length);
		if (port < 0)
			break;
		hako_vsock_rename(s, (uint32_t)port);
		s->state = HAKO_VSOCK_CONNECTING;
		s->pending = HAKO_VSOCK_REQUEST;
		deadline_set(s, ANSWER_NS);
		hako_vsock_list(s);
		return;
	}
	s->device->refused++;
	hako_vsock_free(s);
}

void hako_vsock_handle(struct hako_source *source, uint32_t events)
{
	struct hako_vsock_stream *s = hako_container_of(source, struct hako_vsock_stream, source);
	struct hako_vsock_device *d = s->device;

	if (events & EPOLLIN)
		s->readable = true;
	if (events & (EPOLLHUP | EPOLLERR))
		s->host_gone = true;
	if (s->state == HAKO_VSOCK_GREETING) {
		greeting_read(s);
	} else if (s->state == HAKO_VSOCK_CONNECTING) {
		/* A client that went away before the guest answered. */
		if (s->host_gone)
			hako_vsock_abort(s);
	} else {
		if (s->host_gone && s->host_finished && s->state == HAKO_VSOCK_OPEN)
			hako_vsock_tell(s, HAKO_VSOCK_SHUTDOWN_BOTH);
		hako_vsock_list(s);
		if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR) && s->held_length)
			hako_vsock_held_write(s);
	}
	hako_vsock_deliver(d);
}

static uint32_t port_next(struct hako_vsock_device *d)
{
	/* 2^30 connections later an old one may still be there; the port is then unique together with the peer's. */
	uint32_t port = PORT_FIRST + d->next_port;

	d->next_port = (d->next_port + 1) % PORT_FIRST;
	return port;
}

static void listener_handle(struct hako_source *source, uint32_t events)
{
	struct hako_vsock_device *d = hako_container_of(source, struct hako_vsock_device, listener);

	(void)events;
	/* What the loop had fetched before the device stopped listening still comes here. */
	if (!hako_virtio_running(&d->virtio))
		return;
	for (int n = 0; n < ACCEPTS_A_ROUND; n++) {
		int fd = accept4(source->fd, NULL, NULL, SOCK_CLOEXEC);
		struct hako_vsock_stream *s;

		if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)) {
			/* Clients wait; the timer lets them in again. */
			hako_vsock_listen(d, false);
			d->crowded = true;
			timer_start(d);
		}
		if (fd < 0)
			return;
		s = hako_vsock_make(d, fd, port_next(d), 0);
		if (!s)
			continue;
		s->state = HAKO_VSOCK_GREETING;
		deadline_set(s, GREETING_NS);
	}
}

static void timer_handle(struct hako_source *source, uint32_t events)
{
	struct hako_vsock_device *d = hako_container_of(source, struct hako_vsock_device, timer);
	uint64_t now = now_ns();

	(void)events;
	hako_timer_read(source->fd);
	d->timing = false;
	for (uint32_t i = 0; i < HAKO_VSOCK_BUCKETS; i++) {
		struct hako_vsock_stream *next, *s = d->buckets[i];

		for (; s; s = next) {
			next = s->next_in_bucket;
			if (!s->deadline)
				continue;
			if (s->deadline > now)
				d->timing = true;
			else if (s->state == HAKO_VSOCK_GREETING)
				hako_vsock_free(s);
			else
				hako_vsock_abort(s);
		}
	}
	if (d->timing)
		hako_timer_set(source->fd, TICK_NS);
	if (d->crowded && hako_virtio_running(&d->virtio)) {
		d->crowded = false;
		hako_vsock_listen(d, true);
	}
	hako_vsock_deliver(d);
}

void hako_vsock_listen(struct hako_vsock_device *d, bool listen)
{
	if (d->listening == listen)
		return;
	d->listening = listen;
	hako_source_modify(d->virtio.loop, &d->listener, listen ? EPOLLIN : 0);
}

int hako_vsock_sources_open(struct hako_vsock_device *d, int listener)
{
	int flags = fcntl(listener, F_GETFL);
	int ret, timer;

	if (flags < 0 || fcntl(listener, F_SETFL, flags | O_NONBLOCK) < 0)
		return -errno;
	timer = hako_timer_open();
	if (timer < 0)
		return timer;
	d->timer = (struct hako_source){ .fd = timer, .handle = timer_handle };
	d->listener = (struct hako_source){ .fd = listener, .handle = listener_handle };
	ret = hako_source_add(d->virtio.loop, &d->timer, EPOLLIN);
	if (ret == 0) {
		ret = hako_source_add(d->virtio.loop, &d->listener, 0);
		if (ret == 0)
			return 0;
		hako_source_remove(d->virtio.loop, &d->timer);
	}
	close(timer);
	return ret;
}

void hako_vsock_sources_close(struct hako_vsock_device *d)
{
	hako_source_remove(d->virtio.loop, &d->listener);
	hako_source_remove(d->virtio.loop, &d->timer);
	close(d->listener.fd);
	close(d->timer.fd);
}
