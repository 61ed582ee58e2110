// SPDX-License-Identifier: Apache-2.0
/* The process itself: its stdio, directory, identity, privileges, and finally its program. */
#define _GNU_SOURCE

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <linux/capability.h>
#include <linux/seccomp.h>

#include "../kernel.h"
#include "launch.h"
#include "wire.h"

#define IOPRIO_WHO_PROCESS 1
#ifndef SCHED_DEADLINE
#define SCHED_DEADLINE 6
#endif

/* struct sched_attr of <linux/sched/types.h>, which clashes with the C library's. */
struct hako_sched_attr {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period;
};

static int oom_score_write(struct hako_launch *l)
{
	hako_auto_close int fd = openat(l->proc, "self/oom_score_adj", O_RDWR | O_CLOEXEC);
	char text[16] = "";

	if (fd < 0 || read(fd, text, sizeof(text) - 1) < 0)
		return -errno;
	if (atoi(text) == l->request->oom_score)
		return 0;
	snprintf(text, sizeof(text), "%d", l->request->oom_score);
	return write(fd, text, strlen(text)) < 0 ? -errno : 0;
}

static int scheduler_set(struct hako_launch *l)
{
	const struct hako_scheduler *s = &l->request->scheduler;
	struct hako_sched_attr attr = {
		.size = sizeof(attr),
		.policy = s->policy,
		.flags = s->flags,
		.nice = s->nice,
		.priority = s->priority,
		.runtime = s->runtime,
		.deadline = s->deadline,
		.period = s->period,
	};

	if (syscall(SYS_sched_setattr, 0, &attr, 0) < 0)
		return hako_fail(l, HAKO_STEP_SCHEDULER, -errno, "policy %u", s->policy);
	return 0;
}

/*
 * What only the outer root may set and children inherit: I/O priority and scheduler, the OOM score, and hard limits above our own. The
 * exact limits follow right before execve, when a low one can no longer disturb the set-up.
 */
int hako_outer_limits_set(struct hako_launch *l)
{
	const struct hako_request *q = l->request;
	int ret = oom_score_write(l);

	if (ret)
		return hako_fail(l, HAKO_STEP_OOM_SCORE, ret, "%d", q->oom_score);
	if (q->io_priority && syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, q->io_priority) < 0)
		return hako_fail(l, HAKO_STEP_SCHEDULER, -errno, "I/O priority 0x%x", q->io_priority);
	if (q->has_scheduler && q->scheduler.policy != SCHED_DEADLINE) {
		ret = scheduler_set(l);
		if (ret)
			return ret;
	}
	for (uint32_t i = 0; i < q->rlimit_count; i++) {
		struct rlimit limit;

		if (getrlimit((int)q->rlimits[i].resource, &limit) < 0)
			return hako_fail(l, HAKO_STEP_RLIMIT, -errno, "%u", q->rlimits[i].resource);
		if (limit.rlim_max >= q->rlimits[i].hard)
			continue;
		limit.rlim_max = q->rlimits[i].hard;
		if (setrlimit((int)q->rlimits[i].resource, &limit) < 0)
			return hako_fail(l, HAKO_STEP_RLIMIT, -errno, "%u raised to %llu",
					 q->rlimits[i].resource, (unsigned long long)q->rlimits[i].hard);
	}
	return 0;
}

/* A process with a deadline cannot fork: so this one is set by the container's process for itself. */
static int deadline_set(struct hako_launch *l)
{
	const struct hako_request *q = l->request;

	if (!q->has_scheduler || q->scheduler.policy != SCHED_DEADLINE)
		return 0;
	if (!q->root)
		return hako_fail(l, HAKO_STEP_SCHEDULER, -EOPNOTSUPP, "a deadline for a process that joins");
	return scheduler_set(l);
}

static int limits_set(struct hako_launch *l)
{
	const struct hako_request *q = l->request;

	for (uint32_t i = 0; i < q->rlimit_count; i++) {
		struct rlimit limit = { .rlim_cur = q->rlimits[i].soft, .rlim_max = q->rlimits[i].hard };

		if (setrlimit((int)q->rlimits[i].resource, &limit) < 0)
			return hako_fail(l, HAKO_STEP_RLIMIT, -errno, "%u", q->rlimits[i].resource);
	}
	return 0;
}

int hako_cwd_make(struct hako_launch *l)
{
	hako_auto_close int fd = hako_root_make(l->root, l->request->cwd, true);

	return fd < 0 ? hako_fail(l, HAKO_STEP_CWD, fd, "%s", l->request->cwd) : 0;
}

/* The working directory must lie below the root: a descriptor of the outside must not become one. */
static int cwd_enter(const char *path)
{
	char where[HAKO_PATH_MAX + 1];

	if (chdir(path) < 0)
		return -errno;
	if (syscall(SYS_getcwd, where, sizeof(where)) < 0)
		return errno == ERANGE ? -ENAMETOOLONG : -errno;
	return where[0] == '/' ? 0 : -ENOENT;
}

static bool is_null(const struct stat *st)
{
	return S_ISCHR(st->st_mode) && st->st_rdev == makedev(1, 3);
}

/* Gives stdio to the user, so that it can be opened again by /dev/stdout; what cannot be given stays. */
static int stdio_give(int fd, uint32_t uid)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (st.st_uid == uid || is_null(&st) || fchown(fd, uid, (gid_t)-1) == 0)
		return 0;
	return errno == EPERM || errno == EINVAL || errno == EROFS ? 0 : -errno;
}

static int stdio_set(struct hako_launch *l)
{
	const struct hako_request *q = l->request;

	for (int i = 0; i < 3; i++) {
		int source = l->terminal >= 0 ? l->terminal : l->fds[q->stdio[i]];
		int ret = dup2(source, i) < 0 ? -errno : stdio_give(i, q->user.uid);

		if (ret)
			return hako_fail(l, HAKO_STEP_STDIO, ret, "descriptor %d", i);
	}
	return 0;
}

static int bounding_set_drop(struct hako_launch *l)
{
	uint64_t keep = l->request->capabilities.bounding;

	for (int cap = 0; cap < 64; cap++) {
		int present = prctl(PR_CAPBSET_READ, cap, 0, 0, 0);

		if (present < 0)
			return 0;	/* the kernel has no more */
		if (present && !(keep & 1ull << cap) && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
			return hako_fail(l, HAKO_STEP_CAPABILITIES, -errno, "bounding set, capability %d", cap);
	}
	return 0;
}

static int capabilities_get(uint64_t *permitted)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2];

	if (syscall(SYS_capget, &header, data) < 0)
		return -errno;
	*permitted = data[0].permitted | (uint64_t)data[1].permitted << 32;
	return 0;
}

static int capabilities_set(uint64_t effective, uint64_t permitted, uint64_t inheritable)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = {
		{ (uint32_t)effective, (uint32_t)permitted, (uint32_t)inheritable },
		{ (uint32_t)(effective >> 32), (uint32_t)(permitted >> 32), (uint32_t)(inheritable >> 32) },
	};

	return hako_result(syscall(SYS_capset, &header, data));
}

/* A filter without no_new_privs can be loaded only with CAP_SYS_ADMIN, so that is dropped after it. */
static bool admin_needed_for_filter(const struct hako_request *q)
{
	return q->filter && !(q->flags & HAKO_FLAG_NO_NEW_PRIVS);
}

/* What the request gives, as far as we have it ourselves: outside a VM the launcher may lack some. */
static int capabilities_drop(struct hako_launch *l)
{
	struct hako_capabilities *c = &l->request->capabilities;
	uint64_t extra = admin_needed_for_filter(l->request) ? 1ull << CAP_SYS_ADMIN : 0;
	uint64_t ours = 0;
	int ret = capabilities_get(&ours);

	if (ret < 0)
		return hako_fail(l, HAKO_STEP_CAPABILITIES, ret, "capget");
	c->effective &= ours;
	c->permitted &= ours;
	c->inheritable &= ours;
	c->ambient &= ours;
	ret = capabilities_set(c->effective | extra, c->permitted | extra, c->inheritable);
	if (ret < 0)
		return hako_fail(l, HAKO_STEP_CAPABILITIES, ret, "capset");
	for (int cap = 0; cap < 64; cap++) {
		if (!(c->ambient & 1ull << cap))
			continue;
		if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0) < 0)
			return hako_fail(l, HAKO_STEP_CAPABILITIES, -errno, "ambient set, capability %d", cap);
	}
	return 0;
}

/* Raw calls: the process has one thread, and musl's wrappers would only look for others. */
static int user_set(struct hako_launch *l)
{
	const struct hako_user *user = &l->request->user;

	if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
		return hako_fail(l, HAKO_STEP_USER, -errno, "keep capabilities");
	if (syscall(SYS_setgroups, (size_t)user->group_count, user->groups) < 0)
		return hako_fail(l, HAKO_STEP_USER, -errno, "supplementary groups");
	if (syscall(SYS_setresgid, user->gid, user->gid, user->gid) < 0)
		return hako_fail(l, HAKO_STEP_USER, -errno, "gid %u", user->gid);
	if (syscall(SYS_setresuid, user->uid, user->uid, user->uid) < 0)
		return hako_fail(l, HAKO_STEP_USER, -errno, "uid %u", user->uid);
	/* The change made the process dumpable again as fs.suid_dumpable says. */
	if (prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return hako_fail(l, HAKO_STEP_USER, -errno, "not dumpable");
	umask(user->umask);
	return 0;
}

/* What the security module shall make of us at execve; children inherit it, so a helper may set it, too. */
static int label_set(struct hako_launch *l)
{
	const struct hako_request *q = l->request;
	bool apparmor = q->label_kind == HAKO_LABEL_APPARMOR;
	char text[HAKO_PATH_MAX + 8];
	hako_auto_close int fd = -1;

	if (!q->label_kind)
		return 0;
	/* One write: the kernel takes no second part. */
	snprintf(text, sizeof(text), "%s%s", apparmor ? "exec " : "", q->label);
	fd = openat(l->proc, apparmor ? "thread-self/attr/apparmor/exec" : "thread-self/attr/exec", O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		return hako_fail(l, HAKO_STEP_LABEL, -errno, "%s", q->label);
	return 0;
}

int hako_process_confine(struct hako_launch *l)
{
	struct hako_request *q = l->request;
	int cwd, ret;

	ret = stdio_set(l);
	if (!ret)
		ret = deadline_set(l);
	if (ret)
		return ret;
	if (q->has_personality && personality(q->personality) < 0)
		return hako_fail(l, HAKO_STEP_PERSONALITY, -errno, "0x%x", q->personality);
	cwd = cwd_enter(q->cwd);
	ret = bounding_set_drop(l);
	if (!ret)
		ret = user_set(l);
	if (!ret)
		ret = capabilities_drop(l);
	if (ret)
		return ret;
	if (q->flags & HAKO_FLAG_NO_NEW_PRIVS && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return hako_fail(l, HAKO_STEP_NO_NEW_PRIVS, -errno, "prctl");
	/* A directory that root may not enter (a network mount) the user may. */
	if (cwd == -EACCES || cwd == -EPERM)
		cwd = cwd_enter(q->cwd);
	if (cwd)
		return hako_fail(l, HAKO_STEP_CWD, cwd, "%s", q->cwd);
	hako_home_set(q);
	ret = hako_program_find(l);
	return ret ? ret : label_set(l);
}

static void signals_reset(void)
{
	struct sigaction standard = { .sa_handler = SIG_DFL };
	sigset_t none;

	for (int signal = 1; signal < NSIG; signal++)
		sigaction(signal, &standard, NULL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static int filter_load(struct hako_launch *l)
{
	const struct hako_request *q = l->request;
	const struct hako_capabilities *c = &q->capabilities;
	struct sock_fprog program = { .len = (unsigned short)q->filter_length, .filter = q->filter };
	int ret;

	if (!q->filter)
		return 0;
	ret = hako_result(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, q->seccomp_flags, &program));
	if (ret < 0)
		return hako_fail(l, HAKO_STEP_SECCOMP, ret, "%u instructions", q->filter_length);
	if (!admin_needed_for_filter(q))
		return 0;
	ret = capabilities_set(c->effective, c->permitted, c->inheritable);
	return ret < 0 ? hako_fail(l, HAKO_STEP_CAPABILITIES, ret, "capset after the seccomp filter") : 0;
}

int hako_descriptors_close(struct hako_launch *l)
{
	if (l->report != 3) {
		if (dup3(l->report, 3, O_CLOEXEC) < 0)
			return hako_fail(l, HAKO_STEP_STDIO, -errno, "report socket");
		l->report = 3;
	}
	return hako_close_range(4, ~0U) < 0 ? hako_fail(l, HAKO_STEP_STDIO, -errno, "close the rest") : 0;
}

int hako_process_execute(struct hako_launch *l)
{
	struct hako_request *q = l->request;
	int ret = hako_descriptors_close(l);

	if (!ret)
		ret = limits_set(l);
	if (ret)
		return ret;
	signals_reset();
	/* Without hako-init nobody could tell how the process ends. (A change of the user would clear this.) */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
		return hako_fail(l, HAKO_STEP_CLONE, -errno, "parent death signal");
	ret = hako_gate(l, HAKO_OP_READY, HAKO_OP_START);
	if (!ret)
		ret = hako_hooks_run(l, HAKO_HOOK_START);
	if (!ret)
		ret = filter_load(l);
	if (ret)
		return ret;
	execve(l->program, q->args, q->env);
	return hako_fail(l, HAKO_STEP_EXECVE, -errno, "%s", q->args[0]);
}
