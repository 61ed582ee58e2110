// SPDX-License-Identifier: Apache-2.0
/* One launch, told from top to bottom; launch.h explains the two processes. */
#define _GNU_SOURCE

#include "launch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <linux/magic.h>

#include "../kernel.h"
#include "wire.h"

/* Maps a request's memory file for reading; it must be sealed against change. */
static int request_map(int memfd, const void **data, size_t *size)
{
	int wanted = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW;
	int seals = fcntl(memfd, F_GET_SEALS);
	struct stat st;
	void *map;

	if (seals < 0 || fstat(memfd, &st) < 0)
		return -errno;
	if ((seals & wanted) != wanted)
		return -EPERM;
	if (st.st_size <= 0 || st.st_size > HAKO_REQUEST_MAX)
		return -E2BIG;
	map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, memfd, 0);
	if (map == MAP_FAILED)
		return -errno;
	*data = map;
	*size = (size_t)st.st_size;
	return 0;
}

static int request_read(struct hako_launch *l, uint32_t fd_count)
{
	const char *why = "the memory file is not sealed or too large";
	const void *data = NULL;
	size_t size = 0;
	int ret = request_map(l->fds[0], &data, &size);

	if (!ret)
		ret = hako_request_parse(l->request, data, size, fd_count, &why);
	return ret ? hako_fail(l, HAKO_STEP_REQUEST, ret, "%s", why) : 0;
}

static int proc_open(struct hako_launch *l)
{
	struct statfs fs;

	l->proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (l->proc < 0 || fstatfs(l->proc, &fs) < 0)
		return hako_fail(l, HAKO_STEP_REQUEST, -errno, "/proc");
	return fs.f_type == PROC_SUPER_MAGIC ? 0 : hako_fail(l, HAKO_STEP_REQUEST, -ENODEV, "/proc");
}

static bool is_cgroup2(int directory)
{
	struct statfs fs;

	return fstatfs(directory, &fs) == 0 && fs.f_type == CGROUP2_SUPER_MAGIC;
}

/* Moves a process into the request's cgroup by hand: cgroup v1, or a kernel without CLONE_INTO_CGROUP. */
static int cgroup_enter(struct hako_launch *l, int pid)
{
	hako_auto_close int fd = openat(l->fds[l->request->cgroup], "cgroup.procs", O_WRONLY | O_CLOEXEC);

	if (fd < 0 || dprintf(fd, "%d", pid) < 0)
		return hako_fail(l, HAKO_STEP_CGROUP, -errno, "cgroup.procs");
	return 0;
}

/* What the child shares with the helper: until the helper writes to the gate, the child waits. */
struct birth {
	int pid, pidfd;
	int gate[2];
	bool in_cgroup;
};

static int child_clone(struct hako_launch *l, struct birth *b)
{
	const struct hako_request *q = l->request;
	uint32_t flags = (q->new_namespaces & ~(uint32_t)(CLONE_NEWCGROUP | CLONE_NEWTIME)) | CLONE_PARENT | CLONE_PIDFD;
	struct clone_args args = { .flags = flags, .pidfd = (uintptr_t)&b->pidfd };
	int ret;

	b->in_cgroup = l->in_cgroup;
	if (!b->in_cgroup && q->cgroup != HAKO_NO_FD && is_cgroup2(l->fds[q->cgroup])) {
		args.flags |= CLONE_INTO_CGROUP;
		args.cgroup = (uint64_t)l->fds[q->cgroup];
	}
	ret = hako_clone3(&args);
	if (ret == -ENOSYS)
		return hako_result(syscall(SYS_clone, flags, NULL, &b->pidfd, NULL, 0));
	if (args.flags & CLONE_INTO_CGROUP)
		b->in_cgroup = true;
	return ret;
}

/* Only now, inside the cgroup: a cgroup namespace takes the place of its first process for its root. */
static int cgroup_namespace_enter(struct hako_launch *l)
{
	const struct hako_request *q = l->request;
	int ret = 0;

	if (q->new_namespaces & CLONE_NEWCGROUP)
		ret = hako_unshare(CLONE_NEWCGROUP);
	for (uint32_t i = 0; i < q->join_count; i++) {
		if (q->joins[i].type == CLONE_NEWCGROUP)
			ret = hako_setns(l->fds[q->joins[i].fd], CLONE_NEWCGROUP);
	}
	return ret < 0 ? hako_fail(l, HAKO_STEP_CGROUP, ret, "cgroup namespace") : 0;
}

/*
 * What hooks of the OCI specification see: the container's namespaces and its finished file system, at the place
 * where the agent has it, with the outer root around it. First the agent runs those that belong to its own side.
 */
static int hold_and_enter(struct hako_launch *l)
{
	int ret = 0;

	if (l->request->flags & HAKO_FLAG_HOLD)
		ret = hako_gate(l, HAKO_OP_HOLD, HAKO_OP_CONTINUE);
	if (!ret)
		ret = hako_hooks_run(l, HAKO_HOOK_CREATE);
	return ret ? ret : hako_root_enter(l);
}

/* The container's process, from its birth to the attached mounts. */
static int container_build(struct hako_launch *l)
{
	const struct hako_request *q = l->request;
	bool keeps_outer = q->flags & HAKO_FLAG_HOLD || hako_hooks_exist(q, HAKO_HOOK_CREATE);
	int ret;

	if (l->in_userns) {
		ret = hako_userns_become_root(l);
		if (ret)
			return ret;
	}
	ret = cgroup_namespace_enter(l);
	if (ret)
		return ret;
	if (q->new_namespaces & CLONE_NEWNET) {
		ret = hako_loopback_up();
		if (ret < 0)
			return hako_fail(l, HAKO_STEP_LOOPBACK, ret, "lo");
	}
	ret = hako_names_set(l);
	if (!ret)
		ret = hako_sysctls_write(l);
	if (!ret)
		ret = hako_filesystems_create(l);
	if (!ret)
		ret = hako_root_place(l, !keeps_outer);
	if (!ret && !keeps_outer)
		ret = hako_root_enter(l);
	if (!ret)
		ret = hako_mounts_attach(l);
	if (!ret)
		ret = hako_devices_create(l);
	if (!ret)
		ret = hako_terminal_open(l);
	if (!ret)
		ret = hako_terminal_attach_console(l);
	if (!ret)
		ret = hako_cwd_make(l);
	if (!ret && keeps_outer)
		ret = hold_and_enter(l);
	return ret ? ret : hako_paths_protect(l);
}

/* Our pid as the outer /proc tells it, for the state that hooks are given; 0 when it cannot. */
static int outer_pid(const struct hako_launch *l)
{
	char text[16] = "";

	if (!l->request->hook_count || readlinkat(l->proc, "self", text, sizeof(text) - 1) < 0)
		return 0;
	return atoi(text);
}

static int container_run(struct hako_launch *l)
{
	int ret = 0;

	l->outer_pid = outer_pid(l);
	if (setsid() < 0)
		return hako_fail(l, HAKO_STEP_TERMINAL, -errno, "setsid");
	if (l->request->root) {
		ret = container_build(l);
		if (!ret)
			ret = hako_process_confine(l);
	}
	if (!ret)
		ret = hako_terminal_control(l);
	return ret ? ret : hako_process_execute(l);
}

static _Noreturn void child_run(struct hako_launch *l, struct birth *b)
{
	char go;

	close(b->gate[1]);
	if (read(b->gate[0], &go, 1) == 1) {
		hako_close(&b->gate[0]);
		container_run(l);
	}
	_exit(127);
}

static int child_introduce(struct hako_launch *l, const struct birth *b)
{
	struct {
		uint32_t op;
		int32_t pid;
	} message = { HAKO_OP_PID, b->pid };
	int ret = 0;

	if (l->request->cgroup != HAKO_NO_FD && !b->in_cgroup)
		ret = cgroup_enter(l, b->pid);
	if (!ret)
		ret = hako_id_maps_write(l, b->pid);
	if (!ret)
		ret = hako_report(l->report, &message, sizeof(message), b->pidfd);
	if (!ret && write(b->gate[1], "", 1) < 0)
		ret = -errno;
	return ret;
}

/* Everything that the helper of a new container does before the container's process exists. */
static int container_prepare(struct hako_launch *l)
{
	const struct hako_request *q = l->request;
	int ret;

	l->in_userns = q->new_namespaces & CLONE_NEWUSER;
	l->in_cgroupns = q->new_namespaces & CLONE_NEWCGROUP;
	for (uint32_t i = 0; i < q->join_count; i++) {
		l->in_userns |= q->joins[i].type == CLONE_NEWUSER;
		l->in_cgroupns |= q->joins[i].type == CLONE_NEWCGROUP;
	}
	ret = hako_sources_open(l);
	if (!ret)
		ret = hako_device_sources_open(l);
	if (!ret)
		ret = hako_join_namespaces(l);
	return ret ? ret : hako_time_namespace_make(l);
}

/* The same for a process that joins a running container; afterwards nothing of the outside is open any more. */
static int container_join(struct hako_launch *l)
{
	int ret = 0;

	if (l->request->cgroup != HAKO_NO_FD && !l->in_cgroup) {
		ret = cgroup_enter(l, 0);
		l->in_cgroup = true;
	}
	if (!ret)
		ret = hako_join_container(l);
	if (ret)
		return ret;
	l->root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (l->root < 0)
		return hako_fail(l, HAKO_STEP_ROOT, -errno, "/");
	ret = hako_terminal_open(l);
	if (!ret)
		ret = hako_process_confine(l);
	return ret ? ret : hako_descriptors_close(l);
}

static int launch(struct hako_launch *l, uint32_t fd_count)
{
	struct birth b = { .pidfd = -1 };
	int ret = request_read(l, fd_count);

	if (!ret)
		ret = proc_open(l);
	if (!ret)
		ret = hako_outer_limits_set(l);
	if (!ret)
		ret = l->request->root ? container_prepare(l) : container_join(l);
	if (ret)
		return ret;
	if (pipe2(b.gate, O_CLOEXEC) < 0)
		return hako_fail(l, HAKO_STEP_CLONE, -errno, "pipe");
	b.pid = child_clone(l, &b);
	if (b.pid < 0)
		return hako_fail(l, HAKO_STEP_CLONE, b.pid, "namespaces 0x%x", l->request->new_namespaces);
	if (b.pid == 0)
		child_run(l, &b);
	return child_introduce(l, &b);
}

_Noreturn void hako_launch(const int *fds, uint32_t fd_count, bool in_cgroup)
{
	static struct hako_request request;
	struct hako_launch l = {
		.request = &request,
		.fds = fds,
		.report = fds[1],
		.proc = -1,
		.root = -1,
		.root_tree = -1,
		.null_tree = -1,
		.terminal = -1,
		.in_cgroup = in_cgroup,
	};

	umask(0);
	_exit(launch(&l, fd_count) ? 1 : 0);
}
