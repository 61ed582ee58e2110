/* SPDX-License-Identifier: Apache-2.0 */
/* The network device: net.c is the device, net_packet.c moves packets between TAP and queues. */
#ifndef HAKO_VMM_VIRTIO_NET_H
#define HAKO_VMM_VIRTIO_NET_H

#include <linux/virtio_net.h>

#include "device.h"
#include "limiter.h"

#define HAKO_NET_PAIRS_MAX	8
/* In front of every packet, on both sides of the TAP (5.1.6). */
#define HAKO_NET_HEADER		sizeof(struct virtio_net_hdr_v1)

struct hako_net_device;

/* A pair of queues with its TAP queue. */
struct hako_net_pair {
	struct hako_source tap;
	struct hako_net_device *device;
	uint32_t index, events;		/* what the TAP is waited for; 0: it is not in the loop */
	bool starved;			/* the guest has no buffers: it tells when it has */
	bool blocked;			/* the TAP takes no packets */
};

struct hako_net_direction {
	struct hako_limiter limiter;
	uint64_t packets, bytes, dropped;
};

struct hako_net_device {
	struct hako_virtio virtio;
	struct hako_net_pair pairs[HAKO_NET_PAIRS_MAX];
	uint32_t pair_count, pairs_used;
	uint8_t mac[6];
	uint16_t mtu;
	struct hako_net_direction receive, transmit;
};

/* Moves packets as long as there are some and it is this pair's turn. 0, or -errno: the device is broken. */
int hako_net_receive(struct hako_net_pair *pair);
int hako_net_transmit(struct hako_net_pair *pair);
/* Waits for the TAP, for what the pair is in need of. */
void hako_net_wait(struct hako_net_pair *pair);
/* The handler of `tap`. */
void hako_net_handle(struct hako_source *source, uint32_t events);

#endif
