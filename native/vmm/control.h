/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket: one manager at a time, one message a packet (wire.h). The rest of the program sees requests
 * whose header, length and number of descriptors are already checked, and fills a reply.
 */
#ifndef HAKO_VMM_CONTROL_H
#define HAKO_VMM_CONTROL_H

#include <stdbool.h>
#include <stdint.h>

#include "event.h"
#include "wire.h"

struct hako_machine;

struct hako_request {
	uint16_t type;
	uint32_t length;		/* of the payload, */
	const uint8_t *payload;		/* which is aligned to 8 bytes */
	/* What a handler keeps it sets to -1 here; the others are closed after it. */
	int fds[HAKO_MESSAGE_FDS_MAX];
	uint32_t fd_count;
};

struct hako_reply {
	uint8_t *payload;
	uint32_t length, capacity;
	bool last;	/* the process ends after it */
};

/* Zeroed room at the payload's end, or NULL when there is no more. Lengths that are multiples of 8 keep it aligned. */
void *hako_reply_reserve(struct hako_reply *reply, uint32_t length);
/* Makes the reply a text for a person; returns `error` (a negative errno). */
int hako_reply_fail(struct hako_reply *reply, int error, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

struct hako_control {
	struct hako_source listener;
	struct hako_source peer;	/* fd -1: no manager */
};

/* `listener`: a listening SOCK_SEQPACKET socket. 0 or -errno. */
int hako_control_open(struct hako_machine *machine, int listener);
/* An event with descriptors, which stay the caller's. `wait`: until there is room. 0, -ENOTCONN, -EAGAIN, -EPIPE. */
int hako_control_event(struct hako_machine *machine, uint16_t type, const void *payload, uint32_t length,
		       const int *fds, uint32_t fd_count, bool wait);
/* Hangs up on a manager that is gone or takes nothing; the next one may connect. Nothing happens without one. */
void hako_control_drop(struct hako_machine *machine);

/* request.c: carries a request out. 0 or -errno. Called with the machine's lock held. */
int hako_request_handle(struct hako_machine *machine, struct hako_request *request, struct hako_reply *reply);

#endif
