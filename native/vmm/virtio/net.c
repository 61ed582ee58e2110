// SPDX-License-Identifier: Apache-2.0
/* The network device (VIRTIO 1.2, 5.1) on a TAP. */
#define _GNU_SOURCE
#include "net.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define OFFLOADS	(TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN)

static struct hako_net_device *net_of(struct hako_virtio *v)
{
	return hako_container_of(v, struct hako_net_device, virtio);
}

/* ---- the TAP */

static int tap_ioctl(int fd, unsigned long what, unsigned long argument)
{
	return ioctl(fd, what, argument) < 0 ? -errno : 0;
}

/* Takes the TAP's queue into use, or out of it: the kernel spreads packets over all that are in use. */
static void tap_use(struct hako_net_pair *pair, bool use)
{
	struct ifreq request = { .ifr_flags = use ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE };

	/* Fails where it already is as it should be, and with a TAP of one queue. */
	ioctl(pair->tap.fd, TUNSETQUEUE, &request);
}

static int tap_prepare(int fd)
{
	int size = HAKO_NET_HEADER, flags = fcntl(fd, F_GETFL);
	struct ifreq request = { 0 };

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 || ioctl(fd, TUNGETIFF, &request) < 0)
		return -errno;
	if ((request.ifr_flags & (IFF_TAP | IFF_VNET_HDR | IFF_NO_PI)) != (IFF_TAP | IFF_VNET_HDR | IFF_NO_PI))
		return -EINVAL;
	return tap_ioctl(fd, TUNSETVNETHDRSZ, (unsigned long)&size);
}

/* What the kernel may hand to the guest unfinished: checksums and segmentation that the driver can do. */
static int offload_set(struct hako_net_device *n)
{
	static const struct {
		uint32_t feature, flag;
	} map[] = {
		{ VIRTIO_NET_F_GUEST_CSUM, TUN_F_CSUM },     { VIRTIO_NET_F_GUEST_TSO4, TUN_F_TSO4 },
		{ VIRTIO_NET_F_GUEST_TSO6, TUN_F_TSO6 },     { VIRTIO_NET_F_GUEST_ECN, TUN_F_TSO_ECN },
		{ VIRTIO_NET_F_GUEST_UFO, TUN_F_UFO },
	};
	unsigned long flags = 0;

	for (size_t i = 0; i < sizeof(map) / sizeof(map[0]); i++)
		flags |= hako_virtio_accepted(&n->virtio, map[i].feature) ? map[i].flag : 0;
	/* Without checksums nothing else is possible (5.1.3.1). */
	return tap_ioctl(n->pairs[0].tap.fd, TUNSETOFFLOAD, flags & TUN_F_CSUM ? flags : 0);
}

static void pairs_use(struct hako_net_device *n, uint32_t count)
{
	n->pairs_used = count;
	for (uint32_t i = 0; i < n->pair_count; i++) {
		struct hako_net_pair *pair = &n->pairs[i];

		if (i < count && n->pair_count > 1)
			tap_use(pair, true);
		pair->starved = pair->blocked = false;
		hako_net_wait(pair);
		if (i >= count)
			tap_use(pair, false);
	}
}

/* ---- queues */

static uint8_t control_handle(struct hako_net_device *n, struct hako_buffers *command)
{
	struct virtio_net_ctrl_hdr header;
	struct virtio_net_ctrl_mq pairs;

	if (!hako_buffers_get(command, &header, sizeof(header)) || header.class != VIRTIO_NET_CTRL_MQ ||
	    header.cmd != VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET || !hako_virtio_accepted(&n->virtio, VIRTIO_NET_F_MQ) ||
	    !hako_buffers_get(command, &pairs, sizeof(pairs)) || pairs.virtqueue_pairs < 1 ||
	    pairs.virtqueue_pairs > n->pair_count)
		return VIRTIO_NET_ERR;
	pairs_use(n, pairs.virtqueue_pairs);
	return VIRTIO_NET_OK;
}

static int control_notify(struct hako_net_device *n, uint32_t queue)
{
	struct hako_queue *q = &n->virtio.queues[queue];
	struct hako_chain chain;
	int ret;

	while ((ret = hako_queue_pop(q, n->virtio.memory, &chain)) > 0) {
		uint8_t answer = control_handle(n, &chain.read);

		if (!hako_buffers_put(&chain.write, &answer, sizeof(answer)))
			return -EPROTO;
		hako_queue_push(q, chain.head, sizeof(answer));
	}
	hako_virtio_signal_queue(&n->virtio, queue);
	return ret;
}

/* The control queue comes after all the pairs that the driver knows of (5.1.2). */
static uint32_t control_queue(const struct hako_net_device *n)
{
	return hako_virtio_accepted(&n->virtio, VIRTIO_NET_F_MQ) ? n->pair_count * 2 : 2;
}

static int net_notify(struct hako_virtio *v, uint32_t queue)
{
	struct hako_net_device *n = net_of(v);
	struct hako_net_pair *pair = &n->pairs[queue / 2];

	if (hako_virtio_accepted(v, VIRTIO_NET_F_CTRL_VQ) && queue == control_queue(n))
		return control_notify(n, queue);
	if (queue / 2 >= n->pairs_used)
		return 0;
	if (queue % 2)
		return pair->blocked ? 0 : hako_net_transmit(pair);
	return hako_net_receive(pair);
}

static void receive_again(struct hako_limiter *limiter)
{
	struct hako_net_device *n = hako_container_of(limiter, struct hako_net_device, receive.limiter);

	for (uint32_t i = 0; i < n->pairs_used; i++)
		hako_virtio_kick(&n->virtio, i * 2);
}

static void transmit_again(struct hako_limiter *limiter)
{
	struct hako_net_device *n = hako_container_of(limiter, struct hako_net_device, transmit.limiter);

	for (uint32_t i = 0; i < n->pairs_used; i++)
		hako_virtio_kick(&n->virtio, i * 2 + 1);
}

/* ---- life */

static uint64_t features_find(const struct hako_net_device *n, int tap)
{
	static const uint32_t always[] = {
		VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_MAC, VIRTIO_NET_F_GUEST_TSO4,
		VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6,
		VIRTIO_NET_F_HOST_ECN, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_STATUS,
	};
	uint64_t features = 0;

	for (size_t i = 0; i < sizeof(always) / sizeof(always[0]); i++)
		features |= 1ull << always[i];
	/* Kernels from 4.14 on cut UDP into fragments by themselves, or do not know of it any more. */
	if (tap_ioctl(tap, TUNSETOFFLOAD, OFFLOADS | TUN_F_UFO) == 0)
		features |= 1ull << VIRTIO_NET_F_GUEST_UFO | 1ull << VIRTIO_NET_F_HOST_UFO;
	if (n->mtu)
		features |= 1ull << VIRTIO_NET_F_MTU;
	if (n->pair_count > 1)
		features |= 1ull << VIRTIO_NET_F_MQ | 1ull << VIRTIO_NET_F_CTRL_VQ;
	return features;
}

static int limits_set(struct hako_net_device *n, const struct hako_net *config)
{
	int ret = hako_limiter_set(&n->receive.limiter, &config->receive);

	return ret < 0 ? ret : hako_limiter_set(&n->transmit.limiter, &config->transmit);
}

static void limits_close(struct hako_net_device *n)
{
	hako_limiter_close(&n->receive.limiter);
	hako_limiter_close(&n->transmit.limiter);
}

static int net_open(struct hako_virtio *v, const struct hako_device_request *request)
{
	struct hako_net_device *n = net_of(v);
	const struct hako_net *config = request->config;
	uint32_t pairs = request->add->queues ? request->add->queues : 1;
	int ret;

	/* 68 is the least that IPv4 needs; a multicast address is nobody's own. */
	if (pairs > HAKO_NET_PAIRS_MAX || request->fd_count != pairs || (config->mtu && config->mtu < 68) ||
	    config->mac[0] & 1)
		return -EINVAL;
	for (uint32_t i = 0; i < pairs; i++) {
		ret = tap_prepare(request->fds[i]);
		if (ret < 0)
			return ret;
	}
	hako_limiter_init(&n->receive.limiter, v->loop, receive_again);
	hako_limiter_init(&n->transmit.limiter, v->loop, transmit_again);
	ret = limits_set(n, config);
	if (ret < 0) {
		limits_close(n);
		return ret;
	}
	n->pair_count = pairs;
	memcpy(n->mac, config->mac, sizeof(n->mac));
	n->mtu = config->mtu;
	for (uint32_t i = 0; i < pairs; i++) {
		n->pairs[i] = (struct hako_net_pair){
			.tap = { .fd = request->fds[i], .handle = hako_net_handle },
			.device = n,
			.index = i,
		};
		request->fds[i] = -1;
	}
	v->queue_count = pairs > 1 ? pairs * 2 + 1 : 2;
	v->config_size = offsetof(struct virtio_net_config, speed);
	v->features = features_find(n, n->pairs[0].tap.fd);
	pairs_use(n, 1);
	return 0;
}

static void net_close(struct hako_virtio *v)
{
	struct hako_net_device *n = net_of(v);

	limits_close(n);
	for (uint32_t i = 0; i < n->pair_count; i++)
		close(n->pairs[i].tap.fd);
}

static int net_activate(struct hako_virtio *v)
{
	return offload_set(net_of(v));
}

static void net_reset(struct hako_virtio *v)
{
	pairs_use(net_of(v), 1);
}

/* Both ways: whether a pair waits for its TAP follows from the state that the device is in. */
static void pairs_wait(struct hako_virtio *v)
{
	struct hako_net_device *n = net_of(v);

	for (uint32_t i = 0; i < n->pair_count; i++)
		hako_net_wait(&n->pairs[i]);
}

static void net_save(struct hako_virtio *v, struct hako_bytes *bytes)
{
	hako_bytes_put(bytes, &net_of(v)->pairs_used, sizeof(uint32_t));
}

static int net_restore(struct hako_virtio *v, struct hako_bytes *bytes)
{
	struct hako_net_device *n = net_of(v);
	uint32_t count;

	hako_bytes_get(bytes, &count, sizeof(count));
	if (count < 1 || count > n->pair_count)
		return -EINVAL;
	pairs_use(n, count);
	return 0;
}

static void net_config_read(struct hako_virtio *v, uint32_t offset, void *data, uint32_t length)
{
	const struct hako_net_device *n = net_of(v);
	struct virtio_net_config config = {
		.status = VIRTIO_NET_S_LINK_UP,
		.max_virtqueue_pairs = (uint16_t)n->pair_count,
		.mtu = n->mtu,
	};

	memcpy(config.mac, n->mac, sizeof(config.mac));
	memcpy(data, (const uint8_t *)&config + offset, length);
}

static int net_update(struct hako_virtio *v, const void *update, int *fds, uint32_t fd_count)
{
	(void)fds;
	return fd_count ? -EINVAL : limits_set(net_of(v), update);
}

static void net_metrics(struct hako_virtio *v)
{
	const struct hako_net_device *n = net_of(v);

	hako_metric_add(v->machine, v->slot, "received_packets", n->receive.packets);
	hako_metric_add(v->machine, v->slot, "received_bytes", n->receive.bytes);
	hako_metric_add(v->machine, v->slot, "received_dropped", n->receive.dropped);
	hako_metric_add(v->machine, v->slot, "transmitted_packets", n->transmit.packets);
	hako_metric_add(v->machine, v->slot, "transmitted_bytes", n->transmit.bytes);
	hako_metric_add(v->machine, v->slot, "transmitted_dropped", n->transmit.dropped);
}

const struct hako_virtio_ops hako_virtio_net = {
	.kind = HAKO_KIND_NET,
	.name = "net",
	.instance_size = sizeof(struct hako_net_device),
	.config_size = sizeof(struct hako_net),
	.update_size = sizeof(struct hako_net),
	.queue_size = 256,
	.open = net_open,
	.close = net_close,
	.activate = net_activate,
	.reset = net_reset,
	.notify = net_notify,
	.config_read = net_config_read,
	.quiesce = pairs_wait,
	.resume = pairs_wait,
	.save = net_save,
	.restore = net_restore,
	.update = net_update,
	.metrics = net_metrics,
};
