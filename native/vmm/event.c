// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "event.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "../kernel.h"

int hako_loop_init(struct hako_loop *loop)
{
	pthread_cond_init(&loop->turn, NULL);
	loop->epoll = epoll_create1(EPOLL_CLOEXEC);
	return loop->epoll < 0 ? -errno : 0;
}

static int source_control(struct hako_loop *loop, int operation, struct hako_source *source, uint32_t events)
{
	struct epoll_event event = {
		.events = events,
		.data.u64 = (uint64_t)loop->slots[source->fd].generation << 32 | (uint32_t)source->fd,
	};

	return hako_result(epoll_ctl(loop->epoll, operation, source->fd, &event));
}

int hako_source_add(struct hako_loop *loop, struct hako_source *source, uint32_t events)
{
	int ret;

	if (source->fd < 0 || source->fd >= HAKO_SOURCES_MAX)
		return -EBADF;
	ret = source_control(loop, EPOLL_CTL_ADD, source, events);
	if (ret == 0)
		loop->slots[source->fd].source = source;
	return ret;
}

static bool source_known(const struct hako_loop *loop, const struct hako_source *source)
{
	return source->fd >= 0 && source->fd < HAKO_SOURCES_MAX && loop->slots[source->fd].source == source;
}

int hako_source_modify(struct hako_loop *loop, struct hako_source *source, uint32_t events)
{
	return source_known(loop, source) ? source_control(loop, EPOLL_CTL_MOD, source, events) : -ENOENT;
}

void hako_source_remove(struct hako_loop *loop, struct hako_source *source)
{
	if (!source_known(loop, source))
		return;
	source_control(loop, EPOLL_CTL_DEL, source, 0);
	loop->slots[source->fd].source = NULL;
	loop->slots[source->fd].generation++;
}

static struct hako_source *source_find(const struct hako_loop *loop, const struct epoll_event *event)
{
	uint32_t fd = (uint32_t)event->data.u64;

	return loop->slots[fd].generation == event->data.u64 >> 32 ? loop->slots[fd].source : NULL;
}

void hako_loop_lock(struct hako_loop *loop, pthread_mutex_t *lock)
{
	atomic_fetch_add(&loop->waiting, 1);
	pthread_mutex_lock(lock);
	atomic_fetch_sub(&loop->waiting, 1);
}

void hako_loop_unlock(struct hako_loop *loop, pthread_mutex_t *lock)
{
	if (loop->aside)
		pthread_cond_signal(&loop->turn);
	pthread_mutex_unlock(lock);
}

/* Between two handlers. Whoever is waiting now has not had the lock yet, and will signal when it gives it back. */
static void step_aside(struct hako_loop *loop, pthread_mutex_t *lock)
{
	if (!atomic_load(&loop->waiting))
		return;
	loop->aside = true;
	pthread_cond_wait(&loop->turn, lock);
	loop->aside = false;
}

int hako_loop_turn(struct hako_loop *loop, pthread_mutex_t *lock, int timeout_ms)
{
	int count = epoll_wait(loop->epoll, loop->events, HAKO_LOOP_ROUND, timeout_ms);

	if (count < 0)
		return errno == EINTR ? 0 : -errno;
	for (int i = 0; i < count; i++) {
		struct hako_source *source;

		pthread_mutex_lock(lock);
		source = source_find(loop, &loop->events[i]);
		if (source)
			source->handle(source, loop->events[i].events);
		step_aside(loop, lock);
		pthread_mutex_unlock(lock);
	}
	return count;
}

int hako_loop_run(struct hako_loop *loop, pthread_mutex_t *lock)
{
	int ret;

	do
		ret = hako_loop_turn(loop, lock, -1);
	while (ret >= 0);
	return ret;
}

int hako_timer_open(void)
{
	return hako_result(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
}

int hako_timer_set(int fd, uint64_t after_ns)
{
	struct itimerspec when = {
		.it_value = { .tv_sec = (time_t)(after_ns / 1000000000), .tv_nsec = (long)(after_ns % 1000000000) },
	};

	return hako_result(timerfd_settime(fd, 0, &when, NULL));
}

void hako_timer_read(int fd)
{
	uint64_t expirations;

	while (read(fd, &expirations, sizeof(expirations)) < 0 && errno == EINTR)
		;
}
