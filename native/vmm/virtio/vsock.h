/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The socket device (VIRTIO 1.2, 5.10). vsock.c moves packets between the queues and the streams; vsock_stream.c
 * is the streams' table and what each says and hears on its unix socket.
 *
 * Host to guest: a client of the listening unix socket says "CONNECT <port>\n" and gets "OK <its own port>\n" once
 * the guest has accepted. Guest to host: the manager gets one end of a socket pair.
 */
#ifndef HAKO_VMM_VIRTIO_VSOCK_H
#define HAKO_VMM_VIRTIO_VSOCK_H

#include <linux/virtio_vsock.h>

#include "device.h"

#define HAKO_VSOCK_STREAMS_MAX	4096
#define HAKO_VSOCK_BUCKETS	1024
#define HAKO_VSOCK_LINE_MAX	20	/* "CONNECT 4294967295\n" has 19 bytes */
/* What a guest may send on a stream ahead of its reader. */
#define HAKO_VSOCK_CREDIT	(256u << 10)
/* What all streams together hold for readers that are slow; beyond it the stream that wants more is reset. */
#define HAKO_VSOCK_HELD_MAX	(64u << 20)
#define HAKO_VSOCK_RESETS_MAX	256

#define HAKO_VSOCK_TYPE_STREAM	1
#define HAKO_VSOCK_SHUTDOWN_BOTH	(VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND)

/* Packets that wait for a buffer of the guest; bits of `pending`, in the order in which they are sent. */
#define HAKO_VSOCK_RESET	1
#define HAKO_VSOCK_REQUEST	2
#define HAKO_VSOCK_RESPONSE	4
#define HAKO_VSOCK_CREDIT_TELL	8
#define HAKO_VSOCK_CREDIT_ASK	16
#define HAKO_VSOCK_SHUTDOWN	32	/* after the data that was read before */

enum hako_vsock_state {
	HAKO_VSOCK_GREETING,	/* a client that has not said its line yet */
	HAKO_VSOCK_CONNECTING,	/* the guest has not answered */
	HAKO_VSOCK_OPEN,
	HAKO_VSOCK_GONE,	/* over for the guest; what it sent goes out to the host still */
};

struct hako_vsock_device;

struct hako_vsock_stream {
	struct hako_source source;	/* edge triggered */
	struct hako_vsock_device *device;
	struct hako_vsock_stream *next_in_bucket;
	struct hako_vsock_stream *before, *after;	/* in the list of those that have something for the guest */
	uint32_t local_port, peer_port;
	uint8_t state, pending;
	bool listed, readable, writing_waits, asked;
	bool host_finished, host_gone;	/* it sends no more; it is not there any more */
	uint8_t told, heard;		/* VIRTIO_VSOCK_SHUTDOWN_* sent to the guest, and come from it */

	uint32_t peer_credit, peer_taken, sent;	/* of what goes to the guest; modulo 2^32 */
	uint32_t received, taken, taken_told;	/* of what comes from it */
	uint8_t *held;			/* HAKO_VSOCK_CREDIT bytes, a ring; NULL as long as the socket takes all */
	uint32_t held_start, held_length;

	uint64_t deadline;		/* ns; 0: none */
	char line[HAKO_VSOCK_LINE_MAX];
	uint8_t line_length;
};

struct hako_vsock_device {
	struct hako_virtio virtio;
	struct hako_source listener, timer;
	bool listening, timing;
	bool event_waits;	/* a restored guest has to be told that its connections are gone, */
	bool event_out;		/* has been told, and has not taken the event yet */
	uint16_t event_mark;	/* chains of the event queue by then */
	bool crowded;		/* no descriptors left: clients wait until the timer ticks */
	uint64_t cid;
	uint64_t seed;
	uint32_t next_port, stream_count, held;
	struct hako_vsock_stream *buckets[HAKO_VSOCK_BUCKETS];
	struct hako_vsock_stream *first, *last;		/* of the list */
	/* Answers to packets that belong to no stream. */
	struct {
		uint32_t local_port, peer_port;
	} resets[HAKO_VSOCK_RESETS_MAX];
	uint32_t reset_start, reset_count;
	uint64_t opened, refused, aborted, received_bytes, transmitted_bytes, received_packets, transmitted_packets;
};

/* ---- vsock.c */

/* Gives the guest what it can take now. */
void hako_vsock_deliver(struct hako_vsock_device *device);

/* ---- vsock_table.c */

struct hako_vsock_stream *hako_vsock_find(struct hako_vsock_device *device, uint32_t local_port, uint32_t peer_port);
/* A stream on a socket, which it takes over, or closes: then NULL. */
struct hako_vsock_stream *hako_vsock_make(struct hako_vsock_device *device, int fd, uint32_t local_port,
					  uint32_t peer_port);
/* The guest's port is known only once a client has said its line. */
void hako_vsock_rename(struct hako_vsock_stream *stream, uint32_t peer_port);
/* Puts the stream at the end of the list if it has something for the guest and is not there yet. */
void hako_vsock_list(struct hako_vsock_stream *stream);
void hako_vsock_unlist(struct hako_vsock_stream *stream);
/* How many bytes the guest has room for. */
uint32_t hako_vsock_room(const struct hako_vsock_stream *stream);
/* Over for the guest; what it sent is still written out. The stream may be freed. */
void hako_vsock_ended(struct hako_vsock_stream *stream);
/* Ends the stream on both sides: the guest gets a reset. */
void hako_vsock_abort(struct hako_vsock_stream *stream);
void hako_vsock_held_free(struct hako_vsock_stream *stream);
void hako_vsock_free(struct hako_vsock_stream *stream);
void hako_vsock_free_all(struct hako_vsock_device *device);

/* ---- vsock_stream.c */

/* Reads from the socket, at most what there is room for: bytes; 0: nothing now (see host_finished). */
uint32_t hako_vsock_read(struct hako_vsock_stream *stream, struct hako_buffers *into);
/* Tells the guest what the host will not do any more. */
void hako_vsock_tell(struct hako_vsock_stream *stream, uint8_t flags);
/* The socket may take what is held. The stream may be freed. */
void hako_vsock_held_write(struct hako_vsock_stream *stream);
/* The guest asks for a connection to a port of the host: 0, or -errno: it is to be refused. */
int hako_vsock_connect(struct hako_vsock_device *device, uint32_t local_port, uint32_t peer_port, uint32_t credit);
/* What packets of the guest do. */
void hako_vsock_accepted(struct hako_vsock_stream *stream);
void hako_vsock_write(struct hako_vsock_stream *stream, struct hako_buffers *from);
void hako_vsock_shutdown(struct hako_vsock_stream *stream, uint32_t flags);

/* ---- vsock_host.c */

int hako_vsock_sources_open(struct hako_vsock_device *device, int listener);
void hako_vsock_sources_close(struct hako_vsock_device *device);
/* Lets clients in, or makes them wait. */
void hako_vsock_listen(struct hako_vsock_device *device, bool listen);
/* The handler of a stream's socket. */
void hako_vsock_handle(struct hako_source *source, uint32_t events);

#endif
