/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What this process may do. It is born in its own pid, mount, ipc, uts and cgroup namespaces (hako_spawn of
 * native/hako.h); the rest it takes from itself before it looks at anything from outside.
 */
#ifndef HAKO_VMM_JAIL_H
#define HAKO_VMM_JAIL_H

#include <stdint.h>

enum hako_filter {
	HAKO_FILTER_EVENT,	/* the event thread, from before the first message on */
	HAKO_FILTER_VCPU,	/* on top of it for the threads that run the guest */
};

/* A network namespace without anything; an empty, read-only root; limits; the user; no capabilities and no way to get any. 0 or -errno. */
int hako_jail_enter(uint32_t uid, uint32_t gid);

/* Confines the calling thread, and the threads that it makes, to the system calls of seccomp.c. 0 or -errno. */
int hako_seccomp_load(enum hako_filter filter);

#endif
