// SPDX-License-Identifier: Apache-2.0
#include "vsock.h"

#include <errno.h>
#include <linux/vm_sockets.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define CHAINS_A_ROUND	128
#define HEADER		sizeof(struct virtio_vsock_hdr)

enum { RECEIVE, TRANSMIT, EVENT, QUEUES };

static struct hako_vsock_device *vsock_of(struct hako_virtio *v)
{
	return hako_container_of(v, struct hako_vsock_device, virtio);
}

/* ---- to the guest */

/* Takes the most urgent of what the stream has to say out of `pending`; OP_RW: there is nothing but data. */
static uint16_t operation_take(struct hako_vsock_stream *s)
{
	static const struct {
		uint8_t bit;
		uint16_t operation;
	} order[] = {
		{ HAKO_VSOCK_RESET, VIRTIO_VSOCK_OP_RST },
		{ HAKO_VSOCK_REQUEST, VIRTIO_VSOCK_OP_REQUEST },
		{ HAKO_VSOCK_RESPONSE, VIRTIO_VSOCK_OP_RESPONSE },
		{ HAKO_VSOCK_CREDIT_TELL, VIRTIO_VSOCK_OP_CREDIT_UPDATE },
		{ HAKO_VSOCK_CREDIT_ASK, VIRTIO_VSOCK_OP_CREDIT_REQUEST },
		{ HAKO_VSOCK_SHUTDOWN, VIRTIO_VSOCK_OP_SHUTDOWN },
	};

	for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++) {
		if (s->pending & order[i].bit) {
			s->pending &= (uint8_t)~order[i].bit;
			return order[i].operation;
		}
	}
	return VIRTIO_VSOCK_OP_RW;
}

static void header_put(struct hako_buffers *buffers, const struct hako_vsock_device *d, uint16_t operation,
		       uint32_t local_port, uint32_t peer_port, const struct hako_vsock_stream *s, uint32_t length)
{
	struct virtio_vsock_hdr header = {
		.src_cid = VMADDR_CID_HOST,
		.dst_cid = d->cid,
		.src_port = local_port,
		.dst_port = peer_port,
		.len = length,
		.type = HAKO_VSOCK_TYPE_STREAM,
		.op = operation,
		.flags = s && operation == VIRTIO_VSOCK_OP_SHUTDOWN ? s->told : 0,
		.buf_alloc = s ? HAKO_VSOCK_CREDIT : 0,
		.fwd_cnt = s ? s->taken : 0,
	};

	hako_buffers_put(buffers, &header, HEADER);
}

/* One packet of the stream: its bytes, or 0: there was nothing to say after all. Ends the stream that says RST. */
static uint32_t packet_make(struct hako_vsock_stream *s, struct hako_buffers *buffers)
{
	/* The header is written last, when the data's length is known; its place may be cut into many buffers. */
	struct iovec places[HEADER];
	struct hako_buffers front = { .iov = places, .count = buffers->count, .bytes = HEADER };
	uint16_t operation = operation_take(s);
	uint32_t length = 0;

	if (front.count > HEADER)
		front.count = HEADER;
	memcpy(places, buffers->iov, front.count * sizeof(places[0]));
	hako_buffers_skip(buffers, HEADER);
	if (operation == VIRTIO_VSOCK_OP_RW) {
		length = hako_vsock_read(s, buffers);
		if (length == 0)
			return 0;
	}
	header_put(&front, s->device, operation, s->local_port, s->peer_port, s, length);
	s->taken_told = s->taken;
	s->pending &= (uint8_t)~HAKO_VSOCK_CREDIT_TELL;
	if (operation == VIRTIO_VSOCK_OP_RST)
		hako_vsock_free(s);
	return HEADER + length;
}

/* The next packet for the guest, from the resets or from the stream whose turn it is. 0: none. */
static uint32_t packet_next(struct hako_vsock_device *d, struct hako_buffers *buffers)
{
	struct hako_vsock_stream *s = d->first;
	bool reset;
	uint32_t length;

	if (d->reset_count) {
		uint32_t at = d->reset_start;

		header_put(buffers, d, VIRTIO_VSOCK_OP_RST, d->resets[at].local_port, d->resets[at].peer_port, NULL, 0);
		d->reset_start = (at + 1) % HAKO_VSOCK_RESETS_MAX;
		/* Packets of the guest may have waited for room here. */
		if (d->reset_count-- == HAKO_VSOCK_RESETS_MAX)
			hako_virtio_kick(&d->virtio, TRANSMIT);
		return HEADER;
	}
	reset = s->pending & HAKO_VSOCK_RESET;
	length = packet_make(s, buffers);
	if (!reset) {
		/* To the end of the list, if there is more. */
		hako_vsock_unlist(s);
		hako_vsock_list(s);
	}
	return length;
}

void hako_vsock_deliver(struct hako_vsock_device *d)
{
	struct hako_queue *q = &d->virtio.queues[RECEIVE];
	struct hako_chain chain;
	uint32_t length, budget = CHAINS_A_ROUND;
	int ret = 0;

	if (!hako_virtio_running(&d->virtio))
		return;
	while ((d->first || d->reset_count) && budget) {
		budget--;
		ret = hako_queue_pop(q, d->virtio.memory, &chain);
		if (ret <= 0)
			break;
		if (chain.write.bytes <= HEADER) {
			ret = -EPROTO;
			break;
		}
		length = packet_next(d, &chain.write);
		if (length == 0) {
			hako_queue_unpop(q);
			continue;
		}
		hako_queue_push(q, chain.head, length);
		d->received_packets++;
		d->received_bytes += length - HEADER;
	}
	hako_virtio_signal_queue(&d->virtio, RECEIVE);
	if (ret < 0)
		hako_virtio_break(&d->virtio, ret);
	else if (!budget)
		hako_virtio_kick(&d->virtio, RECEIVE);
}

/* ---- from the guest */

static void reset_answer(struct hako_vsock_device *d, const struct virtio_vsock_hdr *header)
{
	uint32_t at = (d->reset_start + d->reset_count) % HAKO_VSOCK_RESETS_MAX;

	if (header->op == VIRTIO_VSOCK_OP_RST)
		return;
	d->resets[at].local_port = header->dst_port;
	d->resets[at].peer_port = header->src_port;
	d->reset_count++;
}

/* A packet that belongs to a stream. */
static void stream_handle(struct hako_vsock_stream *s, const struct virtio_vsock_hdr *header,
			  struct hako_buffers *data)
{
	s->peer_credit = header->buf_alloc;
	s->peer_taken = header->fwd_cnt;
	s->asked = false;
	/* Aborted, and the reset is on its way: only the guest's own is of interest. */
	if ((s->pending & HAKO_VSOCK_RESET) && header->op != VIRTIO_VSOCK_OP_RST)
		return;
	switch (header->op) {
	case VIRTIO_VSOCK_OP_RESPONSE:
		hako_vsock_accepted(s);
		return;
	case VIRTIO_VSOCK_OP_RST:
		hako_vsock_ended(s);
		return;
	case VIRTIO_VSOCK_OP_SHUTDOWN:
		hako_vsock_shutdown(s, header->flags);
		return;
	case VIRTIO_VSOCK_OP_RW:
		hako_vsock_write(s, data);
		return;
	case VIRTIO_VSOCK_OP_CREDIT_REQUEST:
		s->pending |= HAKO_VSOCK_CREDIT_TELL;
		hako_vsock_list(s);
		return;
	case VIRTIO_VSOCK_OP_CREDIT_UPDATE:
		hako_vsock_list(s);
		return;
	default:
		hako_vsock_abort(s);
	}
}

static int packet_handle(struct hako_vsock_device *d, struct hako_buffers *buffers)
{
	struct hako_vsock_stream *s;
	struct virtio_vsock_hdr header;

	if (!hako_buffers_get(buffers, &header, HEADER) || header.len > buffers->bytes)
		return -EPROTO;
	hako_buffers_trim(buffers, header.len);
	d->transmitted_packets++;
	d->transmitted_bytes += header.len;
	if (header.src_cid != d->cid)
		return 0;
	if (header.dst_cid != VMADDR_CID_HOST || header.type != HAKO_VSOCK_TYPE_STREAM) {
		reset_answer(d, &header);
		return 0;
	}
	s = hako_vsock_find(d, header.dst_port, header.src_port);
	if (s && header.op == VIRTIO_VSOCK_OP_REQUEST)
		hako_vsock_abort(s);
	else if (s)
		stream_handle(s, &header, buffers);
	else if (header.op != VIRTIO_VSOCK_OP_REQUEST ||
		 hako_vsock_connect(d, header.dst_port, header.src_port, header.buf_alloc) < 0)
		reset_answer(d, &header);
	return 0;
}

static int vsock_transmit(struct hako_vsock_device *d)
{
	struct hako_queue *q = &d->virtio.queues[TRANSMIT];
	struct hako_chain chain;
	int ret = 1;

	for (uint32_t n = 0; n < CHAINS_A_ROUND && ret > 0; n++) {
		/* Every packet may need an answer: while there is no room for one, the guest's packets wait. */
		if (d->reset_count == HAKO_VSOCK_RESETS_MAX)
			break;
		ret = hako_queue_pop(q, d->virtio.memory, &chain);
		if (ret <= 0)
			break;
		ret = packet_handle(d, &chain.read);
		if (ret < 0)
			break;
		hako_queue_push(q, chain.head, 0);
		ret = 1;
	}
	hako_virtio_signal_queue(&d->virtio, TRANSMIT);
	if (ret > 0 && d->reset_count < HAKO_VSOCK_RESETS_MAX)
		hako_virtio_kick(&d->virtio, TRANSMIT);
	if (ret >= 0)
		hako_vsock_deliver(d);
	return ret < 0 ? ret : 0;
}

/* After a restore: all connections are gone, and the CID may be another one. */
static int event_deliver(struct hako_vsock_device *d)
{
	struct virtio_vsock_event event = { .id = VIRTIO_VSOCK_EVENT_TRANSPORT_RESET };
	struct hako_queue *q = &d->virtio.queues[EVENT];
	struct hako_chain chain;
	int ret;

	if (!d->event_waits)
		return 0;
	ret = hako_queue_pop(q, d->virtio.memory, &chain);
	if (ret <= 0)
		return ret;
	if (!hako_buffers_put(&chain.write, &event, sizeof(event)))
		return -EPROTO;
	hako_queue_push(q, chain.head, sizeof(event));
	d->event_waits = false;
	/* It puts the buffer back once it has closed them all. A connection that came before would be closed as well. */
	d->event_out = true;
	d->event_mark = hako_queue_ask(q);
	hako_virtio_signal_queue(&d->virtio, EVENT);
	return 0;
}

static int vsock_notify(struct hako_virtio *v, uint32_t queue)
{
	struct hako_vsock_device *d = vsock_of(v);

	switch (queue) {
	case TRANSMIT:
		return vsock_transmit(d);
	case EVENT:
		if (!d->event_out)
			return event_deliver(d);
		if (hako_queue_ask(&v->queues[EVENT]) == d->event_mark)
			return 0;
		d->event_out = false;
		hako_vsock_listen(d, true);
		return 0;
	default:
		hako_vsock_deliver(d);
		return 0;
	}
}

/* ---- life */

static int vsock_open(struct hako_virtio *v, const struct hako_device_request *request)
{
	struct hako_vsock_device *d = vsock_of(v);
	const struct hako_vsock *config = request->config;
	int ret;

	/* 0 to 2 and the highest are taken (linux/vm_sockets.h). */
	if (request->fd_count != 1 || config->cid <= VMADDR_CID_HOST || config->cid >= VMADDR_CID_ANY)
		return -EINVAL;
	d->cid = config->cid;
	if (getrandom(&d->seed, sizeof(d->seed), GRND_NONBLOCK) != sizeof(d->seed))
		return -EAGAIN;
	ret = hako_vsock_sources_open(d, request->fds[0]);
	if (ret < 0)
		return ret;
	request->fds[0] = -1;
	v->queue_count = QUEUES;
	v->config_size = sizeof(struct virtio_vsock_config);
	return 0;
}

static void vsock_close(struct hako_virtio *v)
{
	hako_vsock_sources_close(vsock_of(v));
}

static void vsock_resume(struct hako_virtio *v)
{
	struct hako_vsock_device *d = vsock_of(v);
	int ret = event_deliver(d);

	hako_vsock_listen(d, !d->event_out);
	if (ret < 0)
		hako_virtio_break(v, ret);
}

static void vsock_quiesce(struct hako_virtio *v)
{
	hako_vsock_listen(vsock_of(v), false);
}

static int vsock_activate(struct hako_virtio *v)
{
	/* Quiet: it is being restored. */
	if (v->quiet)
		return 0;
	vsock_of(v)->event_waits = false;
	vsock_of(v)->event_out = false;
	vsock_resume(v);
	return 0;
}

static void vsock_reset(struct hako_virtio *v)
{
	struct hako_vsock_device *d = vsock_of(v);

	hako_vsock_listen(d, false);
	hako_vsock_free_all(d);
	d->reset_count = 0;
	d->event_waits = false;
	d->event_out = false;
}

/* Streams are not saved: sockets cannot be. */
static int vsock_restore(struct hako_virtio *v, struct hako_bytes *bytes)
{
	(void)bytes;
	vsock_of(v)->event_waits = true;
	return 0;
}

static void vsock_config_read(struct hako_virtio *v, uint32_t offset, void *data, uint32_t length)
{
	struct virtio_vsock_config config = { .guest_cid = vsock_of(v)->cid };

	memcpy(data, (const uint8_t *)&config + offset, length);
}

static void vsock_metrics(struct hako_virtio *v)
{
	const struct hako_vsock_device *d = vsock_of(v);

	hako_metric_add(v->machine, v->slot, "streams", d->stream_count);
	hako_metric_add(v->machine, v->slot, "held_bytes", d->held);
	hako_metric_add(v->machine, v->slot, "opened", d->opened);
	hako_metric_add(v->machine, v->slot, "refused", d->refused);
	hako_metric_add(v->machine, v->slot, "aborted", d->aborted);
	hako_metric_add(v->machine, v->slot, "received_packets", d->received_packets);
	hako_metric_add(v->machine, v->slot, "received_bytes", d->received_bytes);
	hako_metric_add(v->machine, v->slot, "transmitted_packets", d->transmitted_packets);
	hako_metric_add(v->machine, v->slot, "transmitted_bytes", d->transmitted_bytes);
}

const struct hako_virtio_ops hako_virtio_vsock = {
	.kind = HAKO_KIND_VSOCK,
	.name = "vsock",
	.instance_size = sizeof(struct hako_vsock_device),
	.config_size = sizeof(struct hako_vsock),
	.queue_size = 256,
	.open = vsock_open,
	.close = vsock_close,
	.activate = vsock_activate,
	.reset = vsock_reset,
	.notify = vsock_notify,
	.config_read = vsock_config_read,
	.quiesce = vsock_quiesce,
	.resume = vsock_resume,
	.restore = vsock_restore,
	.metrics = vsock_metrics,
};
