// SPDX-License-Identifier: Apache-2.0
/* Namespaces: joining, ID maps, and what is set inside a new one. */
#define _GNU_SOURCE

#include <grp.h>
#include <net/if.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "../kernel.h"
#include "launch.h"
#include "wire.h"

static const struct {
	int type;
	const char *name;
} namespaces[] = {
	{ CLONE_NEWNS, "mnt" },	      { CLONE_NEWPID, "pid" }, { CLONE_NEWIPC, "ipc" },
	{ CLONE_NEWUTS, "uts" },      { CLONE_NEWNET, "net" }, { CLONE_NEWCGROUP, "cgroup" },
	{ CLONE_NEWUSER, "user" },    { CLONE_NEWTIME, "time" },
};

static const char *namespace_name(uint32_t type)
{
	for (size_t i = 0; i < HAKO_ARRAY_LENGTH(namespaces); i++) {
		if ((uint32_t)namespaces[i].type == type)
			return namespaces[i].name;
	}
	return "unknown";
}

static int join_one(struct hako_launch *l, const struct hako_join *join)
{
	int ret = hako_setns(l->fds[join->fd], (int)join->type);

	return ret < 0 ? hako_fail(l, HAKO_STEP_JOIN, ret, "%s", namespace_name(join->type)) : 0;
}

/*
 * The user namespace comes last: until then the helper has its privileges over the others. The cgroup
 * namespace is left to the container's process (launch.c).
 */
int hako_join_namespaces(struct hako_launch *l)
{
	const struct hako_request *q = l->request;

	for (uint32_t i = 0; i < q->join_count; i++) {
		bool later = q->joins[i].type == CLONE_NEWUSER || q->joins[i].type == CLONE_NEWCGROUP;
		int ret = later ? 0 : join_one(l, &q->joins[i]);

		if (ret)
			return ret;
	}
	for (uint32_t i = 0; i < q->join_count; i++) {
		if (q->joins[i].type == CLONE_NEWUSER)
			return join_one(l, &q->joins[i]);
	}
	return 0;
}

static int namespace_stat(const struct hako_launch *l, const char *process, const char *name, struct stat *st)
{
	char path[64];

	snprintf(path, sizeof(path), "%s/ns/%s", process, name);
	return hako_result(fstatat(l->proc, path, st, 0));
}

/*
 * Joins every namespace in which the container's process differs from us. (Joining one's own user namespace
 * is an error, and the others would be needless.) The pid is used only while the pidfd shows it alive: setns
 * fails with ESRCH otherwise, so a recycled pid cannot decide anything that takes effect.
 */
int hako_join_container(struct hako_launch *l)
{
	const struct hako_request *q = l->request;
	char process[16];
	int types = 0;
	int ret;

	snprintf(process, sizeof(process), "%d", q->target_pid);
	for (size_t i = 0; i < HAKO_ARRAY_LENGTH(namespaces); i++) {
		struct stat ours, theirs;

		if (namespace_stat(l, "self", namespaces[i].name, &ours) < 0)
			continue;	/* a kernel without this kind */
		ret = namespace_stat(l, process, namespaces[i].name, &theirs);
		if (ret < 0)
			return hako_fail(l, HAKO_STEP_JOIN, ret == -ENOENT ? -ESRCH : ret, "%s",
					 namespaces[i].name);
		if (ours.st_ino != theirs.st_ino)
			types |= namespaces[i].type;
	}
	ret = hako_setns(l->fds[q->target_fd], types);
	if (ret < 0)
		return hako_fail(l, HAKO_STEP_JOIN, ret, "the container");
	l->in_userns = types & CLONE_NEWUSER;
	return l->in_userns ? hako_userns_become_root(l) : 0;
}

static int id_map_write(struct hako_launch *l, int pid, const char *name, const struct hako_id_map *maps,
			uint32_t count)
{
	char text[HAKO_ID_MAPS_MAX * 33 + 1];
	char path[32];
	size_t length = 0;
	hako_auto_close int fd = -1;

	for (uint32_t i = 0; i < count; i++)
		length += (size_t)sprintf(text + length, "%u %u %u\n", maps[i].inside, maps[i].outside,
					  maps[i].count);
	snprintf(path, sizeof(path), "%d/%s", pid, name);
	fd = openat(l->proc, path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, text, length) < 0)
		return hako_fail(l, HAKO_STEP_ID_MAP, -errno, "%s", name);
	return 0;
}

int hako_id_maps_write(struct hako_launch *l, int pid)
{
	const struct hako_request *q = l->request;
	int ret;

	if (!q->uid_map_count)
		return 0;
	ret = id_map_write(l, pid, "gid_map", q->gid_maps, q->gid_map_count);
	return ret ? ret : id_map_write(l, pid, "uid_map", q->uid_maps, q->uid_map_count);
}

/*
 * A namespace for the mapping alone: a child that is born into it keeps it alive until the descriptor does. The
 * child shares nothing with us and never runs more than the read that ends with our end of the pipe.
 */
int hako_userns_open(struct hako_launch *l, const struct hako_mount_map *map)
{
	struct hako_id_map maps[HAKO_ID_MAPS_MAX];
	char path[32];
	int pipes[2];
	int fd, ret;
	pid_t pid;

	if (pipe2(pipes, O_CLOEXEC) < 0)
		return -errno;
	pid = hako_result(syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, NULL, NULL, NULL, 0));
	if (pid == 0) {
		char end;

		close(pipes[1]);
		_exit(read(pipes[0], &end, 1) != 0);
	}
	close(pipes[0]);
	if (pid < 0) {
		close(pipes[1]);
		return pid;
	}
	memcpy(maps, map->gids, map->gid_count * sizeof(maps[0]));
	ret = id_map_write(l, pid, "gid_map", maps, map->gid_count);
	memcpy(maps, map->uids, map->uid_count * sizeof(maps[0]));
	if (!ret)
		ret = id_map_write(l, pid, "uid_map", maps, map->uid_count);
	snprintf(path, sizeof(path), "%d/ns/user", pid);
	fd = ret ? ret : hako_result(openat(l->proc, path, O_RDONLY | O_CLOEXEC));
	close(pipes[1]);
	waitpid(pid, NULL, 0);
	return fd;
}

int hako_time_namespace_make(struct hako_launch *l)
{
	const struct hako_request *q = l->request;
	hako_auto_close int fd = -1;
	int ret;

	if (!(q->new_namespaces & CLONE_NEWTIME))
		return 0;
	ret = hako_unshare(CLONE_NEWTIME);
	if (ret < 0)
		return hako_fail(l, HAKO_STEP_TIME, ret, "time namespace");
	if (!q->time_offset_count)
		return 0;
	fd = openat(l->proc, "self/timens_offsets", O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return hako_fail(l, HAKO_STEP_TIME, -errno, "timens_offsets");
	for (uint32_t i = 0; i < q->time_offset_count; i++) {
		const struct hako_time_offset *t = &q->time_offsets[i];

		if (dprintf(fd, "%u %lld %u\n", t->clock, (long long)t->seconds, t->nanoseconds) < 0)
			return hako_fail(l, HAKO_STEP_TIME, -errno, "clock %u", t->clock);
	}
	return 0;
}

int hako_userns_become_root(struct hako_launch *l)
{
	if (syscall(SYS_setgroups, 0, NULL) < 0 || syscall(SYS_setresgid, 0, 0, 0) < 0 ||
	    syscall(SYS_setresuid, 0, 0, 0) < 0)
		return hako_fail(l, HAKO_STEP_USER, -errno, "root of the user namespace");
	return 0;
}

int hako_loopback_up(void)
{
	struct ifreq request = { .ifr_name = "lo" };
	hako_auto_close int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || ioctl(fd, SIOCGIFFLAGS, &request) < 0)
		return -errno;
	request.ifr_flags |= IFF_UP;
	return hako_result(ioctl(fd, SIOCSIFFLAGS, &request));
}

int hako_names_set(struct hako_launch *l)
{
	const struct hako_request *q = l->request;

	if (q->hostname && sethostname(q->hostname, strlen(q->hostname)) < 0)
		return hako_fail(l, HAKO_STEP_HOSTNAME, -errno, "%s", q->hostname);
	if (q->domainname && setdomainname(q->domainname, strlen(q->domainname)) < 0)
		return hako_fail(l, HAKO_STEP_HOSTNAME, -errno, "%s", q->domainname);
	return 0;
}

/*
 * Through the outer /proc, which the container cannot have tampered with; the kernel shows there the settings
 * of the namespaces of the process that opens them.
 */
int hako_sysctls_write(struct hako_launch *l)
{
	const struct hako_request *q = l->request;
	hako_auto_close int sys = -1;

	if (!q->sysctl_count)
		return 0;
	sys = hako_openat2(l->proc, "sys", O_PATH | O_DIRECTORY, 0, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS);
	if (sys < 0)
		return hako_fail(l, HAKO_STEP_SYSCTL, sys, "/proc/sys");
	for (uint32_t i = 0; i < q->sysctl_count; i++) {
		const struct hako_sysctl *s = &q->sysctls[i];
		hako_auto_close int fd = hako_openat2(sys, s->path, O_WRONLY, 0,
						      RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV);

		if (fd < 0)
			return hako_fail(l, HAKO_STEP_SYSCTL, fd, "%s", s->path);
		if (write(fd, s->value, strlen(s->value)) < 0)
			return hako_fail(l, HAKO_STEP_SYSCTL, -errno, "%s", s->path);
	}
	return 0;
}
