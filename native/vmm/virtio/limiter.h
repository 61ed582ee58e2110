/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rate limits by token buckets: one for bytes, one for operations. A request goes out while both buckets hold
 * something, whatever its size, and may leave a debt; so no request is too large for a limit.
 */
#ifndef HAKO_VMM_VIRTIO_LIMITER_H
#define HAKO_VMM_VIRTIO_LIMITER_H

#include <stdbool.h>

#include "../event.h"
#include "../wire.h"

struct hako_bucket {
	uint64_t rate;		/* tokens a second; 0: no limit */
	int64_t capacity, tokens;
	uint64_t filled_at;	/* ns */
};

struct hako_limiter {
	struct hako_bucket bytes, operations;
	struct hako_loop *loop;
	struct hako_source timer;	/* fd -1 as long as there was no limit */
	void (*again)(struct hako_limiter *limiter);
};

/* `again` is called from the event loop once a request that was refused may be tried again. */
void hako_limiter_init(struct hako_limiter *limiter, struct hako_loop *loop,
		       void (*again)(struct hako_limiter *limiter));
int hako_limiter_set(struct hako_limiter *limiter, const struct hako_rate_limit *limit);
void hako_limiter_close(struct hako_limiter *limiter);

/* Whether a request may go out now; if not, `again` will be called. */
bool hako_limiter_ready(struct hako_limiter *limiter);
/* Accounts for one request that went out. */
void hako_limiter_take(struct hako_limiter *limiter, uint32_t bytes);

#endif
