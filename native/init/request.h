/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A launch request as the helper works on it. All strings point into the mapped memfd, which is sealed and
 * stays mapped until execve.
 */
#ifndef HAKO_INIT_REQUEST_H
#define HAKO_INIT_REQUEST_H

#include <linux/filter.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HAKO_ARGS_MAX		65536
#define HAKO_STRING_MAX		131071	/* MAX_ARG_STRLEN of the kernel, less the NUL */
#define HAKO_PATH_MAX		4095
#define HAKO_NAME_MAX		64	/* host name, domain name */
#define HAKO_GROUPS_MAX		65536	/* NGROUPS_MAX */
#define HAKO_RLIMITS_MAX	16	/* RLIM_NLIMITS */
#define HAKO_JOINS_MAX		8
#define HAKO_ID_MAPS_MAX	340	/* UID_GID_MAP_MAX_EXTENTS */
#define HAKO_MOUNTS_MAX		512
#define HAKO_OPTIONS_MAX	64
#define HAKO_DEVICES_MAX	256
#define HAKO_PATHS_MAX		256	/* masked paths, read-only paths */
#define HAKO_SYSCTLS_MAX	256
#define HAKO_TIME_OFFSETS_MAX	2	/* monotonic and boot-time clock */
#define HAKO_HOOKS_MAX		64
#define HAKO_HOOK_TIMEOUT_MAX	86400	/* seconds */
#define HAKO_MOUNT_MAPS_MAX	64

struct hako_user {
	uint32_t uid, gid, umask;
	uint32_t group_count;
	uint32_t *groups;
};

struct hako_capabilities {
	uint64_t bounding, effective, inheritable, permitted, ambient;
};

struct hako_rlimit {
	uint32_t resource;
	uint64_t soft, hard;
};

struct hako_join {
	uint32_t type;		/* one CLONE_NEW* */
	uint32_t fd;		/* index */
};

struct hako_id_map {
	uint32_t inside, outside, count;
};

struct hako_mount {
	uint32_t kind;
	uint32_t attr_set, attr_clear;		/* MOUNT_ATTR_* of this mount */
	uint32_t tree_set, tree_clear;		/* of it and all mounts below */
	uint32_t propagation, tree_propagation;	/* one MS_* or 0 */
	const char *target, *source, *type;
	const char *options;			/* option_count strings, one after the other */
	uint32_t option_count;
	uint32_t namespace_fd;			/* index of the pidfd of a shared mount */
	uint32_t map;				/* 1 + index into mount_maps, 0 for none */
	int tree;				/* the detached mount, -1 until made */
};

/* An ID-mapped mount: what belongs to IDs inside is shown as that of IDs outside. */
struct hako_mount_map {
	uint32_t recursive;
	uint32_t uid_count, gid_count;
	const uint8_t *uids, *gids;		/* struct hako_id_map each, unaligned */
};

struct hako_time_offset {
	uint32_t clock;				/* CLOCK_* */
	int64_t seconds;
	uint32_t nanoseconds;
};

struct hako_scheduler {
	uint32_t policy;			/* SCHED_* */
	int32_t nice;
	uint32_t priority;
	uint64_t flags, runtime, deadline, period;
};

struct hako_hook {
	uint32_t kind, timeout;
	const char *path, *state_before, *state_after;
	char **args, **env;			/* NULL-terminated; env lies behind args' end */
};

struct hako_device {
	uint32_t mode;				/* S_IFCHR, S_IFBLK or S_IFIFO, with permissions */
	uint32_t major, minor, uid, gid;
	const char *path;
	int tree;				/* in a user namespace: a mount of the outer node, else -1 */
};

struct hako_sysctl {
	const char *path, *value;
};

struct hako_request {
	uint32_t flags;
	char **args, **env;			/* NULL-terminated; env has room for one entry more */
	uint32_t arg_count, env_count;
	const char *cwd;
	struct hako_user user;
	struct hako_capabilities capabilities;
	struct hako_rlimit rlimits[HAKO_RLIMITS_MAX];
	uint32_t rlimit_count;
	int32_t oom_score;
	uint32_t rows, columns;
	uint32_t stdio[3];			/* indexes */
	uint32_t new_namespaces;
	struct hako_join joins[HAKO_JOINS_MAX];
	uint32_t join_count;
	uint32_t target_fd;			/* index or HAKO_NO_FD */
	int32_t target_pid;
	struct hako_id_map uid_maps[HAKO_ID_MAPS_MAX], gid_maps[HAKO_ID_MAPS_MAX];
	uint32_t uid_map_count, gid_map_count;
	uint32_t cgroup;			/* index or HAKO_NO_FD */
	const char *root;			/* NULL when joining a running container */
	uint32_t root_propagation;
	struct hako_mount mounts[HAKO_MOUNTS_MAX];
	uint32_t mount_count;
	struct hako_device devices[HAKO_DEVICES_MAX];
	uint32_t device_count;
	const char *masked[HAKO_PATHS_MAX], *readonly[HAKO_PATHS_MAX];
	uint32_t masked_count, readonly_count;
	struct hako_sysctl sysctls[HAKO_SYSCTLS_MAX];
	uint32_t sysctl_count;
	const char *hostname, *domainname;
	struct hako_time_offset time_offsets[HAKO_TIME_OFFSETS_MAX];
	uint32_t time_offset_count;
	bool has_personality, has_scheduler;
	uint32_t personality;
	uint32_t io_priority;			/* 0 leaves it as it is */
	struct hako_scheduler scheduler;
	uint32_t label_kind;			/* 0 for none */
	const char *label;
	struct hako_hook hooks[HAKO_HOOKS_MAX];
	uint32_t hook_count;
	struct hako_mount_map mount_maps[HAKO_MOUNT_MAPS_MAX];
	uint32_t mount_map_count;
	uint32_t seccomp_flags;
	struct sock_filter *filter;		/* NULL when there is none */
	uint32_t filter_length;
};

/*
 * Parses and checks a request; makes no system call.
 * @fd_count: how many descriptors came with it; every index is checked against it.
 * @why: set to a constant sentence on failure.
 * Returns 0; -EBADMSG for malformed bytes, -E2BIG over a limit, -EINVAL for a value out of its range, -ENOMEM.
 * On success and on failure hako_request_release() frees what was allocated.
 */
int hako_request_parse(struct hako_request *request, const void *data, size_t size, uint32_t fd_count,
		       const char **why);

void hako_request_release(struct hako_request *request);

#endif
