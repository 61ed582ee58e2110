// SPDX-License-Identifier: Apache-2.0
/* What a stream carries, both ways. */
#define _GNU_SOURCE
#include "vsock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- from the host to the guest */

/* Tells the guest what the host will not do any more. */
void hako_vsock_tell(struct hako_vsock_stream *s, uint8_t flags)
{
	if ((s->told | flags) == s->told)
		return;
	s->told |= flags;
	s->pending |= HAKO_VSOCK_SHUTDOWN;
}

uint32_t hako_vsock_read(struct hako_vsock_stream *s, struct hako_buffers *into)
{
	struct msghdr message = { 0 };
	ssize_t length;

	hako_buffers_trim(into, hako_vsock_room(s));
	if (into->bytes == 0 || s->state != HAKO_VSOCK_OPEN || s->host_finished)
		return 0;
	message.msg_iov = into->iov;
	message.msg_iovlen = (int)into->count;
	length = recvmsg(s->source.fd, &message, MSG_DONTWAIT);
	if (length > 0) {
		s->sent += (uint32_t)length;
		return (uint32_t)length;
	}
	if (length < 0 && errno == EAGAIN) {
		s->readable = false;
	} else if (length < 0 && errno != EINTR && errno != ECONNRESET) {
		hako_vsock_abort(s);
	} else if (length == 0 || errno == ECONNRESET) {
		s->host_finished = true;
		hako_vsock_tell(s, s->host_gone ? HAKO_VSOCK_SHUTDOWN_BOTH : VIRTIO_VSOCK_SHUTDOWN_SEND);
	}
	return 0;
}

void hako_vsock_accepted(struct hako_vsock_stream *s)
{
	char line[HAKO_VSOCK_LINE_MAX];
	struct iovec iov = { .iov_base = line };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (s->state != HAKO_VSOCK_CONNECTING) {
		hako_vsock_abort(s);
		return;
	}
	iov.iov_len = (size_t)snprintf(line, sizeof(line), "OK %u\n", s->local_port);
	if (sendmsg(s->source.fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)iov.iov_len) {
		hako_vsock_abort(s);
		return;
	}
	s->state = HAKO_VSOCK_OPEN;
	s->deadline = 0;
	s->readable = true;
	s->device->opened++;
	hako_vsock_list(s);
}

/* ---- from the guest to the host */

static void writing_wait(struct hako_vsock_stream *s, bool wait)
{
	uint32_t events = EPOLLIN | EPOLLRDHUP | EPOLLET | (wait ? EPOLLOUT : 0);

	if (s->writing_waits != wait)
		hako_source_modify(s->device->virtio.loop, &s->source, events);
	s->writing_waits = wait;
}

/* All that came is written: now the guest's own end can be passed on. */
static void writing_finish(struct hako_vsock_stream *s)
{
	hako_vsock_held_free(s);
	writing_wait(s, false);
	if (s->state == HAKO_VSOCK_GONE) {
		hako_vsock_free(s);
		return;
	}
	if (s->heard & VIRTIO_VSOCK_SHUTDOWN_SEND)
		shutdown(s->source.fd, SHUT_WR);
	if (s->heard == HAKO_VSOCK_SHUTDOWN_BOTH)
		s->pending = HAKO_VSOCK_RESET;
	hako_vsock_list(s);
}

/* The guest is told of new room when half of what it knew of is used up. */
static void bytes_taken(struct hako_vsock_stream *s, uint32_t bytes)
{
	s->taken += bytes;
	if (s->received - s->taken_told > HAKO_VSOCK_CREDIT / 2 && s->taken != s->taken_told)
		s->pending |= HAKO_VSOCK_CREDIT_TELL;
}

/* Bytes written, 0 if the socket is full; when nobody reads any more, everything is, so to speak. */
static uint32_t socket_write(struct hako_vsock_stream *s, struct iovec *iov, uint32_t count, uint32_t bytes)
{
	struct msghdr message = { .msg_iov = iov, .msg_iovlen = (int)count };
	ssize_t length = sendmsg(s->source.fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (length >= 0)
		return (uint32_t)length;
	if (errno == EAGAIN || errno == EINTR)
		return 0;
	hako_vsock_tell(s, VIRTIO_VSOCK_SHUTDOWN_RCV);
	return bytes;
}

static bool held_add(struct hako_vsock_stream *s, struct hako_buffers *from)
{
	if (!s->held) {
		if (s->device->held + HAKO_VSOCK_CREDIT > HAKO_VSOCK_HELD_MAX)
			return false;
		s->held = malloc(HAKO_VSOCK_CREDIT);
		if (!s->held)
			return false;
		s->device->held += HAKO_VSOCK_CREDIT;
		s->held_start = 0;
	}
	while (from->bytes) {
		uint32_t at = (s->held_start + s->held_length) % HAKO_VSOCK_CREDIT;
		uint32_t part = HAKO_VSOCK_CREDIT - at < from->bytes ? HAKO_VSOCK_CREDIT - at : from->bytes;

		hako_buffers_get(from, s->held + at, part);
		s->held_length += part;
	}
	writing_wait(s, true);
	return true;
}

void hako_vsock_held_write(struct hako_vsock_stream *s)
{
	while (s->held_length) {
		uint32_t part = HAKO_VSOCK_CREDIT - s->held_start;
		struct iovec iov[2];
		uint32_t written;

		if (part > s->held_length)
			part = s->held_length;
		iov[0] = (struct iovec){ .iov_base = s->held + s->held_start, .iov_len = part };
		iov[1] = (struct iovec){ .iov_base = s->held, .iov_len = s->held_length - part };
		written = socket_write(s, iov, 2, s->held_length);
		if (written == 0)
			break;
		s->held_start = (s->held_start + written) % HAKO_VSOCK_CREDIT;
		s->held_length -= written;
		bytes_taken(s, written);
	}
	if (s->held_length == 0)
		writing_finish(s);
	else
		hako_vsock_list(s);
}

void hako_vsock_write(struct hako_vsock_stream *s, struct hako_buffers *from)
{
	uint32_t bytes = from->bytes, written = 0;

	/* More than there is credit for, or after its own end: the guest does not keep to the rules. */
	if (s->state != HAKO_VSOCK_OPEN || (s->heard & VIRTIO_VSOCK_SHUTDOWN_SEND) ||
	    s->received - s->taken + bytes > HAKO_VSOCK_CREDIT) {
		hako_vsock_abort(s);
		return;
	}
	s->received += bytes;
	if (bytes && !s->held_length)
		written = socket_write(s, from->iov, from->count, bytes);
	hako_buffers_skip(from, written);
	if (from->bytes && !held_add(s, from)) {
		hako_vsock_abort(s);
		return;
	}
	bytes_taken(s, written);
	hako_vsock_list(s);
}

void hako_vsock_shutdown(struct hako_vsock_stream *s, uint32_t flags)
{
	if (s->state != HAKO_VSOCK_OPEN) {
		hako_vsock_abort(s);
		return;
	}
	s->heard |= flags & HAKO_VSOCK_SHUTDOWN_BOTH;
	if (s->heard & VIRTIO_VSOCK_SHUTDOWN_RCV) {
		s->host_finished = true;
		shutdown(s->source.fd, SHUT_RD);
	}
	if (!s->held_length)
		writing_finish(s);
}

int hako_vsock_connect(struct hako_vsock_device *d, uint32_t local_port, uint32_t peer_port, uint32_t credit)
{
	struct hako_vsock_event event = { .slot = d->virtio.slot, .port = local_port };
	struct hako_vsock_stream *s;
	int pair[2], ret;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
		d->refused++;
		return -errno;
	}
	s = hako_vsock_make(d, pair[0], local_port, peer_port);
	if (!s) {
		close(pair[1]);
		return -ENOSPC;
	}
	ret = hako_machine_event(d->virtio.machine, HAKO_EVENT_VSOCK, &event, sizeof(event), &pair[1], 1);
	if (ret < 0) {
		d->refused++;
		hako_vsock_free(s);
		return ret;
	}
	d->opened++;
	s->state = HAKO_VSOCK_OPEN;
	s->peer_credit = credit;
	s->pending = HAKO_VSOCK_RESPONSE;
	hako_vsock_list(s);
	return 0;
}
