// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "jail.h"

#include <grp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/capability.h>

#include "../kernel.h"

/*
 * A root of its own: a file system with nothing in it that cannot be written to. pivot_root takes one directory for
 * both its arguments and then stacks the old root on the new one, from where it is unmounted with all below it.
 */
static int root_empty(void)
{
	hako_auto_close int context = -1, root = -1;
	int ret;

	/* Nothing of what follows may reach the mount namespace that this one is a copy of. */
	ret = hako_mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
	if (ret < 0)
		return ret;
	context = hako_fsopen("tmpfs");
	if (context < 0)
		return context;
	ret = hako_fsconfig(context, FSCONFIG_SET_STRING, "nr_inodes", "2");
	if (!ret)
		ret = hako_fsconfig(context, FSCONFIG_SET_STRING, "mode", "0555");
	if (!ret)
		ret = hako_fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL);
	if (ret < 0)
		return ret;
	root = hako_result(syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC,
				   MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC));
	if (root < 0)
		return root;
	ret = hako_result(syscall(SYS_move_mount, root, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH));
	if (ret < 0 || fchdir(root) < 0)
		return ret < 0 ? ret : -errno;
	ret = hako_result(syscall(SYS_pivot_root, ".", "."));
	if (ret < 0)
		return ret;
	ret = hako_umount(".", MNT_DETACH);
	return ret < 0 ? ret : hako_result(chdir("/"));
}

/* What no cgroup counts. Threads cannot be limited here: the kernel counts them by user. */
static int limits_set(void)
{
	static const struct {
		int resource;
		rlim_t limit;
	} limits[] = {
		{ RLIMIT_CORE, 0 },		/* a core would hold the guest's memory */
		{ RLIMIT_NOFILE, 16384 },	/* each stream of vsock is one */
		{ RLIMIT_MSGQUEUE, 0 },
		{ RLIMIT_SIGPENDING, 256 },
		{ RLIMIT_RTPRIO, 0 },
		{ RLIMIT_LOCKS, 0 },
	};

	for (size_t i = 0; i < HAKO_ARRAY_LENGTH(limits); i++) {
		struct rlimit limit = { .rlim_cur = limits[i].limit, .rlim_max = limits[i].limit };

		if (setrlimit(limits[i].resource, &limit) < 0)
			return -errno;
	}
	return 0;
}

static int bounding_set_drop(void)
{
	for (int capability = 0; capability < 64; capability++) {
		if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0)
			return errno == EINVAL ? 0 : -errno;	/* the kernel has no more */
	}
	return 0;
}

/* The change of the user takes the capabilities along; the process has one thread, so raw calls do. */
static int privileges_drop(uint32_t uid, uint32_t gid)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct none[2] = { 0 };
	int ret = bounding_set_drop();

	if (ret)
		return ret;
	if (syscall(SYS_setgroups, 0, NULL) < 0 || syscall(SYS_setresgid, gid, gid, gid) < 0 ||
	    syscall(SYS_setresuid, uid, uid, uid) < 0 || syscall(SYS_capset, &header, none) < 0)
		return -errno;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return -errno;
	return 0;
}

int hako_jail_enter(uint32_t uid, uint32_t gid)
{
	int ret;

	if (!uid || !gid || uid == UINT32_MAX || gid == UINT32_MAX)
		return -EINVAL;
	/* Here and not at birth: it costs the most of all, and the manager has other things to do meanwhile. */
	ret = hako_unshare(CLONE_NEWNET);
	if (!ret)
		ret = root_empty();
	if (!ret)
		ret = limits_set();
	return ret ? ret : privileges_drop(uid, gid);
}
