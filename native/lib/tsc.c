/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <time.h>
#if defined(__x86_64__)
#include <x86intrin.h>
#endif

#include "../hako.h"

#define TRIES 8

static int64_t monotonic_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_RAW, &now);
	return now.tv_sec * 1000000000LL + now.tv_nsec;
}

int32_t hako_tsc_sample(int64_t *tsc, int64_t *ns)
{
#if defined(__x86_64__)
	int64_t shortest = INT64_MAX;

	/* The try that took least was not interrupted between its two clocks. */
	for (int i = 0; i < TRIES; i++) {
		int64_t before = monotonic_ns();
		int64_t ticks = (int64_t)__rdtsc();
		int64_t after = monotonic_ns();

		if (after - before >= shortest)
			continue;
		shortest = after - before;
		*tsc = ticks;
		*ns = before + shortest / 2;
	}
	return 0;
#else
	(void)tsc;
	(void)ns;
	return -ENOSYS;
#endif
}
