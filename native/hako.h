/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libhako: the calls that a JavaScript runtime cannot make by itself. This header is the whole contract.
 *
 * Every function returns a value >= 0, or -errno. Nothing is kept between calls but the one poller.
 * Pointers are only used during the call. All functions may be called from any thread.
 */
#ifndef HAKO_H
#define HAKO_H

#include <stdint.h>

/*
 * Makes system call `nr` (numbers of asm/unistd.h) with up to six arguments; unused ones are 0.
 * Returns what the kernel returned: a value, or -errno. Blocks as long as the system call does.
 */
int64_t hako_syscall(int64_t nr, int64_t a0, int64_t a1, int64_t a2, int64_t a3, int64_t a4, int64_t a5);

/*
 * Starts the poller: an epoll instance watched by one thread.
 *
 * epoll_fd:  receives the epoll descriptor; add and remove descriptors with epoll_ctl(2), collect with
 *            epoll_wait(2) and timeout 0.
 * notify_fd: receives an eventfd that becomes readable once something is ready.
 * ack_fd:    receives an eventfd; after collecting write 8 bytes (a counter of 1) to it, only then does the
 *            thread look again.
 * Returns 0, or -errno with nothing started. The descriptors live as long as the process; all are close-on-exec.
 * The thread blocks every signal.
 */
int32_t hako_poller_start(int32_t *epoll_fd, int32_t *notify_fd, int32_t *ack_fd);

/*
 * Reads the processor's time stamp counter and CLOCK_MONOTONIC_RAW at nearly the same instant (below 0.1 us apart).
 *
 * tsc: receives the counter. ns: receives the clock, in nanoseconds.
 * Returns 0, or -ENOSYS where the processor has no such counter.
 */
int32_t hako_tsc_sample(int64_t *tsc, int64_t *ns);

#define HAKO_SPAWN_FDS_MAX 32

/* What hako_spawn starts. */
struct hako_spawn {
	int32_t program;		/* descriptor of an executable file; a sealed memory file will do */
	int32_t cgroup;			/* descriptor of a cgroup v2 directory that the process is born into, -1: ours */
	uint64_t namespaces;		/* CLONE_NEW*: those that are the process's own */
	const char *const *arguments;	/* the program's name first, NULL at the end */
	const char *const *environment;	/* all of it, NULL at the end */
	const int32_t *fds;		/* become the process's descriptors 0, 1, …; it has no others */
	uint32_t fd_count;		/* at most HAKO_SPAWN_FDS_MAX */
	uint32_t reserved;
};

/*
 * Starts a process of its own session, with default signal handling and nothing of ours but what is named. It is
 * a child of the caller (SIGCHLD at its end) and born into its namespaces and cgroup, so there is no process
 * between. The calling thread waits until the program is executed.
 *
 * pidfd: receives a descriptor of the process, close-on-exec.
 * Returns its pid in our pid namespace, or -errno, also of what failed in the child; nothing is left then.
 */
int64_t hako_spawn(const struct hako_spawn *spawn, int32_t *pidfd);

#endif
