/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event thread: one epoll loop that serves the control socket and all devices' data paths.
 *
 * Everything a device does happens either here or, for register accesses, on a vCPU's thread; both hold the
 * machine's lock while they touch a device (machine.h), so a device has no lock of its own.
 */
#ifndef HAKO_VMM_EVENT_H
#define HAKO_VMM_EVENT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

struct hako_source;

/* Called with the machine's lock held. `events`: EPOLL* bits that are ready. May remove its own source, or others. */
typedef void (*hako_source_handler)(struct hako_source *source, uint32_t events);

/* Embedded in whatever it serves; use hako_container_of. A source is in the loop from add to remove. */
struct hako_source {
	int fd;
	hako_source_handler handle;
};

#define HAKO_LOOP_ROUND		32
#define HAKO_SOURCES_MAX	16384	/* descriptors: as many as jail.c allows */

struct hako_loop {
	int epoll;
	struct epoll_event events[HAKO_LOOP_ROUND];
	/*
	 * By descriptor. An event carries descriptor and generation, not a pointer: between the kernel's answer and the
	 * lock a vCPU's thread may have removed the source, and freed it.
	 */
	struct {
		struct hako_source *source;
		uint32_t generation;
	} slots[HAKO_SOURCES_MAX];
	/* Threads that want the lock, and how the loop steps aside for them. */
	atomic_uint waiting;
	bool aside;
	pthread_cond_t turn;
};

/* All return 0 or -errno. `events`: EPOLLIN, EPOLLOUT, EPOLLET, …; 0 keeps the source but waits for nothing. */
int hako_loop_init(struct hako_loop *loop);
int hako_source_add(struct hako_loop *loop, struct hako_source *source, uint32_t events);
int hako_source_modify(struct hako_loop *loop, struct hako_source *source, uint32_t events);
/*
 * The descriptor stays open. After it the handler is not called again, not even in this round, and the source may be
 * freed. Removing a source twice does no harm.
 */
void hako_source_remove(struct hako_loop *loop, struct hako_source *source);
/* One round: waits at most so long (-1: for ever) without the lock, and takes it for each handler. Handlers, or -errno. */
int hako_loop_turn(struct hako_loop *loop, pthread_mutex_t *lock, int timeout_ms);
/* For ever: waits without the lock, and takes it for each handler. Returns -errno only if epoll itself fails. */
int hako_loop_run(struct hako_loop *loop, pthread_mutex_t *lock);
/*
 * The lock for a vCPU's thread, taken and given back: the loop steps aside after the handler that it is in. Without
 * that a thread might wait as long as there is anything to do, since a mutex goes to whoever runs.
 */
void hako_loop_lock(struct hako_loop *loop, pthread_mutex_t *lock);
void hako_loop_unlock(struct hako_loop *loop, pthread_mutex_t *lock);

/* A timer is a source on a timerfd (CLOCK_MONOTONIC); 0 ns disarms it. hako_timer_read empties it. */
int hako_timer_open(void);
int hako_timer_set(int fd, uint64_t after_ns);
void hako_timer_read(int fd);

#define hako_container_of(pointer, type, member) \
	((type *)((char *)(pointer) - __builtin_offsetof(type, member)))

#endif
