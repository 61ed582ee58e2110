// SPDX-License-Identifier: Apache-2.0
#include "limiter.h"

#include <errno.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S	1000000000ull
/* How long a bucket may fill while nothing goes out, beyond its burst. */
#define SLACK_DIVISOR	10
/* A terabyte a second is no limit; it keeps the sums within 64 bits. */
#define RATE_MAX	(1ull << 40)

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

static void limiter_expire(struct hako_source *source, uint32_t events)
{
	struct hako_limiter *limiter = hako_container_of(source, struct hako_limiter, timer);

	(void)events;
	hako_timer_read(source->fd);
	limiter->again(limiter);
}

void hako_limiter_init(struct hako_limiter *limiter, struct hako_loop *loop,
		       void (*again)(struct hako_limiter *limiter))
{
	*limiter = (struct hako_limiter){
		.loop = loop,
		.timer = { .fd = -1, .handle = limiter_expire },
		.again = again,
	};
}

static void bucket_set(struct hako_bucket *bucket, uint64_t rate, uint64_t burst)
{
	bucket->rate = rate < RATE_MAX ? rate : RATE_MAX;
	bucket->capacity = (int64_t)(burst < RATE_MAX ? burst : RATE_MAX);
	bucket->capacity += (int64_t)(bucket->rate / SLACK_DIVISOR) + 1;
	bucket->tokens = bucket->capacity;
	bucket->filled_at = now_ns();
}

int hako_limiter_set(struct hako_limiter *limiter, const struct hako_rate_limit *limit)
{
	int ret;

	if (limiter->timer.fd < 0 && (limit->bytes_rate || limit->operations_rate)) {
		int fd = hako_timer_open();

		if (fd < 0)
			return fd;
		limiter->timer.fd = fd;
		ret = hako_source_add(limiter->loop, &limiter->timer, EPOLLIN);
		if (ret < 0) {
			close(fd);
			limiter->timer.fd = -1;
			return ret;
		}
	}
	bucket_set(&limiter->bytes, limit->bytes_rate, limit->bytes_burst);
	bucket_set(&limiter->operations, limit->operations_rate, limit->operations_burst);
	/* What waits for the old limit is tried again under the new one. */
	if (limiter->timer.fd >= 0)
		hako_timer_set(limiter->timer.fd, 1);
	return 0;
}

void hako_limiter_close(struct hako_limiter *limiter)
{
	if (limiter->timer.fd < 0)
		return;
	hako_source_remove(limiter->loop, &limiter->timer);
	close(limiter->timer.fd);
	limiter->timer.fd = -1;
}

/* Nanoseconds until the bucket holds something; 0: it does. */
static uint64_t bucket_wait(struct hako_bucket *bucket, uint64_t now)
{
	unsigned __int128 gained;

	if (!bucket->rate)
		return 0;
	gained = (unsigned __int128)(now - bucket->filled_at) * bucket->rate / NS_PER_S;
	if (gained >= (uint64_t)(bucket->capacity - bucket->tokens)) {
		bucket->tokens = bucket->capacity;
		bucket->filled_at = now;
	} else {
		bucket->tokens += (int64_t)gained;
		bucket->filled_at += (uint64_t)(gained * NS_PER_S / bucket->rate);
	}
	if (bucket->tokens > 0)
		return 0;
	return (uint64_t)((unsigned __int128)(1 - bucket->tokens) * NS_PER_S / bucket->rate) + 1;
}

bool hako_limiter_ready(struct hako_limiter *limiter)
{
	uint64_t now, wait, other;

	if (!limiter->bytes.rate && !limiter->operations.rate)
		return true;
	now = now_ns();
	wait = bucket_wait(&limiter->bytes, now);
	other = bucket_wait(&limiter->operations, now);
	if (other > wait)
		wait = other;
	if (wait)
		hako_timer_set(limiter->timer.fd, wait);
	return wait == 0;
}

void hako_limiter_take(struct hako_limiter *limiter, uint32_t bytes)
{
	limiter->bytes.tokens -= limiter->bytes.rate ? bytes : 0;
	limiter->operations.tokens -= limiter->operations.rate ? 1 : 0;
}
