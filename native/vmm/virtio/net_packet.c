// SPDX-License-Identifier: Apache-2.0
/* Packets between TAP and queues, without a copy of our own: readv and writev go straight to the guest's buffers. */
#include <errno.h>
#include <string.h>
#include <sys/uio.h>

#include "net.h"

#define PACKETS_A_ROUND	64
/* The largest packet that segmentation offload makes, with its header (5.1.6.3.1). */
#define PACKET_MAX	65562
#define CHAINS_MAX	64
#define IOV_COUNT	1024	/* the kernel takes no more at once */

/* Buffers of the guest for the next packets. */
struct room {
	struct iovec iov[IOV_COUNT];
	uint32_t iov_first, iov_count;		/* in use: from iov_first on */
	struct {
		uint16_t head;
		uint16_t iov_count;
		uint32_t bytes;
	} chains[CHAINS_MAX];
	uint32_t chain_first, chain_count;
	uint32_t bytes;
};

/* Only used within one call of hako_net_receive, and the machine's lock is held there. */
static struct room scratch;

static uint32_t queue_of(const struct hako_net_pair *pair, bool transmit)
{
	return pair->index * 2 + transmit;
}

static bool room_full(const struct room *r)
{
	return r->bytes >= PACKET_MAX || r->chain_count == CHAINS_MAX || r->iov_count + HAKO_CHAIN_MAX > IOV_COUNT;
}

/* Moves what is left to the front, so that there is space behind it. */
static void room_compact(struct room *r)
{
	memmove(r->iov, r->iov + r->iov_first, r->iov_count * sizeof(r->iov[0]));
	memmove(r->chains, r->chains + r->chain_first, r->chain_count * sizeof(r->chains[0]));
	r->iov_first = r->chain_first = 0;
}

/* Fetches buffers for one packet of any size. 1: enough; 0: the guest has no more now; -errno. */
static int room_fill(struct hako_net_pair *pair, struct room *r)
{
	struct hako_virtio *v = &pair->device->virtio;
	struct hako_queue *q = &v->queues[queue_of(pair, false)];
	bool merge = hako_virtio_accepted(v, VIRTIO_NET_F_MRG_RXBUF);

	room_compact(r);
	while (merge ? !room_full(r) : !r->chain_count) {
		struct hako_chain chain;
		int ret = hako_queue_pop(q, v->memory, &chain);

		/* A small queue never has so much: half of its buffers is all that a driver keeps there. */
		if (ret == 0)
			return merge && r->chain_count >= q->size / 2u && r->chain_count;
		if (ret < 0)
			return ret;
		if (chain.write.bytes < HAKO_NET_HEADER)
			return -EPROTO;
		memcpy(&r->iov[r->iov_count], chain.write.iov, chain.write.count * sizeof(r->iov[0]));
		r->iov_count += chain.write.count;
		r->chains[r->chain_count].head = chain.head;
		r->chains[r->chain_count].iov_count = (uint16_t)chain.write.count;
		r->chains[r->chain_count++].bytes = chain.write.bytes;
		r->bytes += chain.write.bytes;
	}
	return 1;
}

/* Tells in the packet's header how many chains it fills; the header lies in the first, perhaps in pieces. */
static void header_finish(struct room *r, uint16_t buffers)
{
	struct hako_buffers header = {
		.iov = r->iov + r->iov_first,
		.count = r->chains[r->chain_first].iov_count,
		.bytes = HAKO_NET_HEADER,
	};

	/* This changes the iovecs, which are done with. */
	hako_buffers_skip(&header, offsetof(struct virtio_net_hdr_v1, num_buffers));
	hako_buffers_put(&header, &buffers, sizeof(buffers));
}

/* Gives the chains that the packet fills to the driver. */
static void room_use(struct room *r, struct hako_queue *q, uint32_t length)
{
	uint32_t count = 0, left = length;

	while (left > 0) {
		uint32_t bytes = r->chains[r->chain_first + count++].bytes;

		left -= left < bytes ? left : bytes;
	}
	header_finish(r, (uint16_t)count);
	while (count--) {
		uint32_t bytes = r->chains[r->chain_first].bytes, part = length < bytes ? length : bytes;
		uint32_t iov_count = r->chains[r->chain_first].iov_count;

		hako_queue_push(q, r->chains[r->chain_first].head, part);
		length -= part;
		r->bytes -= bytes;
		r->iov_first += iov_count;
		r->iov_count -= iov_count;
		r->chain_first++;
		r->chain_count--;
	}
}

/* One packet. 1: more may follow; 0: not now; -errno: the TAP is gone. */
static int packet_receive(struct hako_net_pair *pair, struct room *r)
{
	struct hako_net_direction *direction = &pair->device->receive;
	ssize_t length = readv(pair->tap.fd, r->iov + r->iov_first, (int)r->iov_count);

	if (length < 0)
		return errno == EAGAIN || errno == EINTR || errno == ENOMEM || errno == ENOBUFS ? 0 : -errno;
	if (length == 0)
		return -ENODEV;
	/* Nothing that could have been cut off may pass for a whole packet. */
	if ((size_t)length < HAKO_NET_HEADER || ((uint32_t)length == r->bytes && length < PACKET_MAX)) {
		direction->dropped++;
		return 1;
	}
	room_use(r, &pair->device->virtio.queues[queue_of(pair, false)], (uint32_t)length);
	direction->packets++;
	direction->bytes += (uint32_t)length - HAKO_NET_HEADER;
	hako_limiter_take(&direction->limiter, (uint32_t)length);
	return 1;
}

int hako_net_receive(struct hako_net_pair *pair)
{
	struct hako_net_device *n = pair->device;
	struct hako_queue *q = &n->virtio.queues[queue_of(pair, false)];
	struct room *r = &scratch;
	int ret = 1;

	r->iov_first = r->iov_count = r->chain_first = r->chain_count = r->bytes = 0;
	pair->starved = false;
	for (int round = 0; round < PACKETS_A_ROUND && ret > 0; round++) {
		if (!hako_limiter_ready(&n->receive.limiter)) {
			/* The limiter's timer goes on with it; packets wait in the TAP and are dropped there. */
			pair->starved = true;
			break;
		}
		ret = room_fill(pair, r);
		if (ret == 0)
			pair->starved = true;
		if (ret > 0)
			ret = packet_receive(pair, r);
	}
	while (r->chain_count--)
		hako_queue_unpop(q);
	hako_virtio_signal_queue(&n->virtio, queue_of(pair, false));
	hako_net_wait(pair);
	return ret < 0 ? ret : 0;
}

/* 1: sent, or dropped; 0: the TAP takes nothing just now; -errno: it is gone. */
static int packet_transmit(struct hako_net_pair *pair, const struct hako_chain *chain)
{
	struct hako_net_direction *direction = &pair->device->transmit;
	ssize_t length;

	if (chain->read.bytes < HAKO_NET_HEADER)
		return -EPROTO;
	length = writev(pair->tap.fd, chain->read.iov, (int)chain->read.count);
	if (length < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (length < 0 && errno == EBADFD)
		return -errno;
	/* A header that makes no sense (EINVAL), an interface that is down (EIO), no memory: dropped. */
	if (length < 0) {
		direction->dropped++;
		return 1;
	}
	direction->packets++;
	direction->bytes += chain->read.bytes - HAKO_NET_HEADER;
	return 1;
}

int hako_net_transmit(struct hako_net_pair *pair)
{
	struct hako_net_device *n = pair->device;
	uint32_t queue = queue_of(pair, true);
	struct hako_queue *q = &n->virtio.queues[queue];
	struct hako_chain chain;
	int ret = 1;

	pair->blocked = false;
	for (int round = 0; round < PACKETS_A_ROUND; round++) {
		if (!hako_limiter_ready(&n->transmit.limiter)) {
			ret = 0;
			break;
		}
		ret = hako_queue_pop(q, n->virtio.memory, &chain);
		if (ret <= 0)
			break;
		ret = packet_transmit(pair, &chain);
		if (ret <= 0) {
			hako_queue_unpop(q);
			pair->blocked = ret == 0;
			break;
		}
		hako_limiter_take(&n->transmit.limiter, chain.read.bytes);
		hako_queue_push(q, chain.head, 0);
	}
	hako_virtio_signal_queue(&n->virtio, queue);
	hako_net_wait(pair);
	if (ret > 0)
		hako_virtio_kick(&n->virtio, queue);
	return ret < 0 ? ret : 0;
}

void hako_net_wait(struct hako_net_pair *pair)
{
	struct hako_virtio *v = &pair->device->virtio;
	bool used = hako_virtio_running(v) && pair->index < pair->device->pairs_used;
	uint32_t events = used ? (pair->starved ? 0 : EPOLLIN) | (pair->blocked ? EPOLLOUT : 0) : 0;

	if (events == pair->events)
		return;
	if (!events)
		hako_source_remove(v->loop, &pair->tap);
	else if (pair->events)
		hako_source_modify(v->loop, &pair->tap, events);
	else if (hako_source_add(v->loop, &pair->tap, events) < 0)
		return;
	pair->events = events;
}

void hako_net_handle(struct hako_source *source, uint32_t events)
{
	struct hako_net_pair *pair = hako_container_of(source, struct hako_net_pair, tap);
	struct hako_virtio *v = &pair->device->virtio;
	int ret = 0;

	if (!hako_virtio_running(v)) {
		hako_net_wait(pair);
		return;
	}
	if (events & (EPOLLERR | EPOLLHUP))
		ret = -ENODEV;
	if (ret == 0 && events & EPOLLIN)
		ret = hako_net_receive(pair);
	if (ret == 0 && events & EPOLLOUT)
		ret = hako_net_transmit(pair);
	if (ret < 0) {
		hako_virtio_break(v, ret);
		hako_net_wait(pair);
	}
}
