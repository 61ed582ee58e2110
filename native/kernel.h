/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System calls that musl does not wrap, and the cleanup attributes. Every function here returns a value >= 0
 * or a negative errno.
 */
#ifndef HAKO_KERNEL_H
#define HAKO_KERNEL_H

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/mount.h>
#include <linux/openat2.h>
#include <linux/sched.h>

/* <sys/mount.h> has these, but cannot stand beside <linux/mount.h> with every C library. */
#define MNT_DETACH		2
#define UMOUNT_NOFOLLOW		8

#define HAKO_ARRAY_LENGTH(a)	(sizeof(a) / sizeof((a)[0]))

static inline void hako_close(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* Closes the descriptor when the variable goes out of scope. */
#define hako_auto_close __attribute__((cleanup(hako_close)))

static inline int hako_result(long ret)
{
	return ret < 0 ? -errno : (int)ret;
}

static inline int hako_mount(const char *source, const char *target, const char *type, unsigned long flags,
			     const char *options)
{
	return hako_result(syscall(SYS_mount, source, target, type, flags, options));
}

static inline int hako_umount(const char *target, int flags)
{
	return hako_result(syscall(SYS_umount2, target, flags));
}

static inline int hako_openat2(int dir, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve)
{
	struct open_how how = { .flags = flags | O_CLOEXEC, .mode = mode, .resolve = resolve };

	return hako_result(syscall(SYS_openat2, dir, path, &how, sizeof(how)));
}

/* A detached copy of the mount at a path; flags: AT_RECURSIVE, AT_EMPTY_PATH. */
static inline int hako_tree_clone(int dir, const char *path, unsigned int flags)
{
	return hako_result(syscall(SYS_open_tree, dir, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | flags));
}

/* Attaches a detached mount on what target refers to. */
static inline int hako_tree_attach(int tree, int target)
{
	return hako_result(syscall(SYS_move_mount, tree, "", target, "",
				   MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH));
}

/* Changes attributes and propagation of a mount, with AT_RECURSIVE of all mounts below it too. */
static inline int hako_tree_change(int tree, unsigned int flags, uint64_t set, uint64_t clear,
				   uint64_t propagation)
{
	struct mount_attr attr = { .attr_set = set, .attr_clr = clear, .propagation = propagation };

	return hako_result(syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH | flags, &attr, sizeof(attr)));
}

static inline int hako_fsopen(const char *type)
{
	return hako_result(syscall(SYS_fsopen, type, FSOPEN_CLOEXEC));
}

static inline int hako_fsconfig(int context, unsigned int command, const char *key, const char *value)
{
	return hako_result(syscall(SYS_fsconfig, context, command, key, value, 0));
}

static inline int hako_fsmount(int context)
{
	return hako_result(syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, 0));
}

static inline int hako_clone3(struct clone_args *args)
{
	return hako_result(syscall(SYS_clone3, args, sizeof(*args)));
}

static inline int hako_setns(int fd, int type)
{
	return hako_result(syscall(SYS_setns, fd, type));
}

static inline int hako_unshare(int flags)
{
	return hako_result(syscall(SYS_unshare, flags));
}

static inline int hako_close_range(unsigned int first, unsigned int last)
{
	return hako_result(syscall(SYS_close_range, first, last, 0));
}

#endif
