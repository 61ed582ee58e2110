// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "event.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "../kernel.h"

int hako_loop_init(struct hako_loop *loop)
{
	loop->count = loop->at = 0;
	loop->epoll = epoll_create1(EPOLL_CLOEXEC);
	return loop->epoll < 0 ? -errno : 0;
}

static int source_control(struct hako_loop *loop, int operation, struct hako_source *source, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.ptr = source };

	return hako_result(epoll_ctl(loop->epoll, operation, source->fd, &event));
}

int hako_source_add(struct hako_loop *loop, struct hako_source *source, uint32_t events)
{
	return source_control(loop, EPOLL_CTL_ADD, source, events);
}

int hako_source_modify(struct hako_loop *loop, struct hako_source *source, uint32_t events)
{
	return source_control(loop, EPOLL_CTL_MOD, source, events);
}

void hako_source_remove(struct hako_loop *loop, struct hako_source *source)
{
	if (source->fd >= 0)
		source_control(loop, EPOLL_CTL_DEL, source, 0);
	for (int i = loop->at; i < loop->count; i++) {
		if (loop->events[i].data.ptr == source)
			loop->events[i].data.ptr = NULL;
	}
}

int hako_loop_run(struct hako_loop *loop, pthread_mutex_t *lock)
{
	for (;;) {
		int count = epoll_wait(loop->epoll, loop->events, HAKO_LOOP_ROUND, -1);

		if (count < 0 && errno != EINTR)
			return -errno;
		/* A vCPU's thread may remove sources between two handlers; the lock guards the round too. */
		pthread_mutex_lock(lock);
		loop->count = count > 0 ? count : 0;
		for (loop->at = 0; loop->at < loop->count;) {
			struct epoll_event *event = &loop->events[loop->at++];
			struct hako_source *source = event->data.ptr;

			if (!source)
				continue;
			source->handle(source, event->events);
			pthread_mutex_unlock(lock);
			pthread_mutex_lock(lock);
		}
		loop->count = 0;
		pthread_mutex_unlock(lock);
	}
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
