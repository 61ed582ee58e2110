// SPDX-License-Identifier: Apache-2.0
/* The streams there are, and the list of those that have something for the guest. */
#define _GNU_SOURCE
#include "vsock.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- the table */

/* The seed keeps a guest from choosing ports that all fall into one bucket. */
static struct hako_vsock_stream **bucket_of(struct hako_vsock_device *d, uint32_t local_port, uint32_t peer_port)
{
	uint64_t key = ((uint64_t)local_port << 32 | peer_port) ^ d->seed;

	key *= 0x9e3779b97f4a7c15ull;
	key ^= key >> 32;
	key *= d->seed | 1;
	return &d->buckets[(key >> 32) % HAKO_VSOCK_BUCKETS];
}

static void table_put(struct hako_vsock_stream *s)
{
	struct hako_vsock_stream **bucket = bucket_of(s->device, s->local_port, s->peer_port);

	s->next_in_bucket = *bucket;
	*bucket = s;
}

static void table_take(struct hako_vsock_stream *s)
{
	struct hako_vsock_stream **place = bucket_of(s->device, s->local_port, s->peer_port);

	while (*place != s)
		place = &(*place)->next_in_bucket;
	*place = s->next_in_bucket;
}

void hako_vsock_rename(struct hako_vsock_stream *s, uint32_t peer_port)
{
	table_take(s);
	s->peer_port = peer_port;
	table_put(s);
}

struct hako_vsock_stream *hako_vsock_find(struct hako_vsock_device *d, uint32_t local_port, uint32_t peer_port)
{
	struct hako_vsock_stream *s = *bucket_of(d, local_port, peer_port);

	while (s && (s->local_port != local_port || s->peer_port != peer_port || s->state == HAKO_VSOCK_GREETING ||
		     s->state == HAKO_VSOCK_GONE))
		s = s->next_in_bucket;
	return s;
}

/* ---- the list of those that have something for the guest */

uint32_t hako_vsock_room(const struct hako_vsock_stream *s)
{
	uint32_t under_way = s->sent - s->peer_taken;

	return under_way < s->peer_credit ? s->peer_credit - under_way : 0;
}

void hako_vsock_unlist(struct hako_vsock_stream *s)
{
	struct hako_vsock_device *d = s->device;

	if (!s->listed)
		return;
	*(s->before ? &s->before->after : &d->first) = s->after;
	*(s->after ? &s->after->before : &d->last) = s->before;
	s->listed = false;
}

void hako_vsock_list(struct hako_vsock_stream *s)
{
	struct hako_vsock_device *d = s->device;
	bool data = s->state == HAKO_VSOCK_OPEN && s->readable && !s->host_finished;

	if (data && hako_vsock_room(s) == 0) {
		/* Asked once; whatever the guest says next brings its credit along. */
		if (!s->asked)
			s->pending |= HAKO_VSOCK_CREDIT_ASK;
		s->asked = true;
		data = false;
	}
	if (s->listed || (!data && !s->pending))
		return;
	s->before = d->last;
	s->after = NULL;
	*(d->last ? &d->last->after : &d->first) = s;
	d->last = s;
	s->listed = true;
}

/* ---- life of a stream */

/* Takes over the socket, or closes it. */
struct hako_vsock_stream *hako_vsock_make(struct hako_vsock_device *d, int fd, uint32_t local_port,
					     uint32_t peer_port)
{
	struct hako_vsock_stream *s = d->stream_count < HAKO_VSOCK_STREAMS_MAX ? calloc(1, sizeof(*s)) : NULL;

	if (s) {
		s->source = (struct hako_source){ .fd = fd, .handle = hako_vsock_handle };
		if (hako_source_add(d->virtio.loop, &s->source, EPOLLIN | EPOLLRDHUP | EPOLLET) == 0) {
			s->device = d;
			s->local_port = local_port;
			s->peer_port = peer_port;
			table_put(s);
			d->stream_count++;
			return s;
		}
		free(s);
	}
	d->refused++;
	close(fd);
	return NULL;
}

void hako_vsock_held_free(struct hako_vsock_stream *s)
{
	if (s->held)
		s->device->held -= HAKO_VSOCK_CREDIT;
	free(s->held);
	s->held = NULL;
	s->held_length = 0;
}

void hako_vsock_free(struct hako_vsock_stream *s)
{
	hako_vsock_unlist(s);
	table_take(s);
	hako_vsock_held_free(s);
	hako_source_remove(s->device->virtio.loop, &s->source);
	close(s->source.fd);
	s->device->stream_count--;
	free(s);
}

void hako_vsock_free_all(struct hako_vsock_device *d)
{
	for (uint32_t i = 0; i < HAKO_VSOCK_BUCKETS; i++) {
		while (d->buckets[i])
			hako_vsock_free(d->buckets[i]);
	}
}

void hako_vsock_abort(struct hako_vsock_stream *s)
{
	if (s->pending & HAKO_VSOCK_RESET)
		return;
	hako_vsock_held_free(s);
	shutdown(s->source.fd, SHUT_RDWR);
	s->device->aborted++;
	s->state = HAKO_VSOCK_OPEN;
	s->host_finished = true;
	s->deadline = 0;
	s->pending = HAKO_VSOCK_RESET;
	hako_vsock_list(s);
}

/* Over for the guest. What it sent is still written out, if the host's reader is slow. */
void hako_vsock_ended(struct hako_vsock_stream *s)
{
	if (!s->held_length) {
		hako_vsock_free(s);
		return;
	}
	s->state = HAKO_VSOCK_GONE;
	s->deadline = 0;
	s->pending = 0;
	hako_vsock_unlist(s);
	shutdown(s->source.fd, SHUT_RD);
}
