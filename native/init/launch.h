/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Launching one process. PID 1 only clones a helper for each LAUNCH message; all work is done there and in the
 * container's process, so that a request can neither crash nor block PID 1.
 *
 *   helper: reads the request, opens what lies outside (bind sources, the root tree), joins namespaces, clones
 *           the container's process as a child of hako-init, writes ID maps, reports the pid, exits.
 *   container process: builds the file system view, drops privileges, reports READY, waits for START, execs.
 *
 * When a process joins a running container, the helper also drops the privileges, so that the process which
 * the container can see never has more of them than the container.
 *
 * Functions return 0 (or a descriptor) or a negative errno; where the failure is the launch's, they have
 * reported it by hako_fail() already.
 */
#ifndef HAKO_INIT_LAUNCH_H
#define HAKO_INIT_LAUNCH_H

#include <stdbool.h>
#include <stdint.h>

#include "request.h"

struct hako_launch {
	struct hako_request *request;
	const int *fds;		/* what came with the message */
	int report;		/* our end of the report socket */
	int proc;		/* the outer /proc, until the process is confined */
	int root;		/* root directory of the container, once entered */
	int root_tree;		/* detached copy of the root file system */
	int null_tree;		/* mount of the outer /dev/null, for masked files */
	bool null_attached;	/* … no longer a detached one */
	int terminal;		/* slave side of the pseudo terminal, or -1 */
	bool in_cgroup;		/* PID 1 cloned the helper into the cgroup */
	bool in_userns;		/* the container has a user namespace of its own */
	bool in_cgroupns;	/* … a cgroup namespace */
	int outer_pid;		/* the container's process as the agent sees it */
	const char *program;	/* path that execve gets */
};

/* launch.c: the helper's whole life; fds[0] is the request, fds[1] the report socket. */
_Noreturn void hako_launch(const int *fds, uint32_t fd_count, bool in_cgroup);

/* report.c */
int hako_report(int socket, const void *message, size_t size, int fd);
/* Reports FAILED with a step (HAKO_STEP_*) and a formatted detail; returns error. */
int hako_fail(const struct hako_launch *l, uint32_t step, int error, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
/* Reports READY or HOLD and waits for START or CONTINUE. Returns 0, or -ECANCELED when the agent hung up. */
int hako_gate(const struct hako_launch *l, uint32_t report, uint32_t answer);

/* namespace.c */
int hako_join_namespaces(struct hako_launch *l);
int hako_join_container(struct hako_launch *l);
int hako_id_maps_write(struct hako_launch *l, int pid);
/* Becomes root of the user namespace that the process is in. */
int hako_userns_become_root(struct hako_launch *l);
/* Sets the loopback interface of the current network namespace up. */
int hako_loopback_up(void);
int hako_names_set(struct hako_launch *l);
int hako_sysctls_write(struct hako_launch *l);
/* A new time namespace for the child, with its offsets; they can only be set while nobody is in it. */
int hako_time_namespace_make(struct hako_launch *l);
/* A user namespace with these maps, as a descriptor. */
int hako_userns_open(struct hako_launch *l, const struct hako_mount_map *map);

/* root.c: paths inside the container's root; symbolic links cannot lead out of it. */
int hako_root_open(int root, const char *path, uint64_t flags, uint64_t resolve);
/* Like hako_root_open with O_PATH, but creates what is missing: directories, at the end one or a file. */
int hako_root_make(int root, const char *path, bool directory);
/* Attaches the root tree, over "/" or, when something shall still see the outer root, at its own place. */
int hako_root_place(struct hako_launch *l, bool over_outer);
/* Makes the attached tree the root and detaches the outer one. */
int hako_root_enter(struct hako_launch *l);

/* hook.c */
bool hako_hooks_exist(const struct hako_request *q, uint32_t kind);
/* Runs the hooks of a kind one after the other; the first that fails ends the launch. */
int hako_hooks_run(const struct hako_launch *l, uint32_t kind);

/* mount.c */
int hako_sources_open(struct hako_launch *l);
int hako_filesystems_create(struct hako_launch *l);
int hako_mounts_attach(struct hako_launch *l);
/* Attaches a tree on path, which is made if missing. */
int hako_tree_attach_at(struct hako_launch *l, int tree, const char *path, uint64_t resolve);
int hako_paths_protect(struct hako_launch *l);

/* device.c */
int hako_device_sources_open(struct hako_launch *l);
int hako_devices_create(struct hako_launch *l);

/* terminal.c */
int hako_terminal_open(struct hako_launch *l);
int hako_terminal_attach_console(struct hako_launch *l);
int hako_terminal_control(struct hako_launch *l);

/* process.c */
int hako_outer_limits_set(struct hako_launch *l);
int hako_cwd_make(struct hako_launch *l);
/* stdio, working directory, user, groups, capabilities, no_new_privs; finds the program. */
int hako_process_confine(struct hako_launch *l);
/* Closes everything but stdio and the report socket, which becomes descriptor 3. */
int hako_descriptors_close(struct hako_launch *l);
/* The last steps: limits, gate, seccomp, execve. Returns only on failure. */
int hako_process_execute(struct hako_launch *l);

/* program.c */
/* Adds HOME to an environment that has none. */
void hako_home_set(struct hako_request *q);
/* Looks argv[0] up with the container's PATH and the user's permissions. */
int hako_program_find(struct hako_launch *l);

#endif
