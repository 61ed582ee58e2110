// SPDX-License-Identifier: Apache-2.0
/*
 * The container's mounts. Each one is made as a detached tree first: bind sources in the outer mount
 * namespace by the helper, new file systems by the container's process before it leaves the outer root (a
 * user namespace may mount proc only where it can see one). After the root has changed they are attached in
 * the order of the request, so that no outer path and no half-configured mount is ever visible inside.
 */
#define _GNU_SOURCE

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "../kernel.h"
#include "launch.h"
#include "wire.h"

/* Attributes of an access time kind replace the old kind as a whole. */
static int tree_attributes(int tree, uint32_t set, uint32_t clear, unsigned int flags)
{
	if (set & MOUNT_ATTR__ATIME || clear & MOUNT_ATTR__ATIME)
		clear |= MOUNT_ATTR__ATIME;
	return set || clear ? hako_tree_change(tree, flags, set, clear, 0) : 0;
}

static int mount_attributes(const struct hako_mount *m)
{
	int ret = tree_attributes(m->tree, m->attr_set, m->attr_clear, 0);

	return ret < 0 ? ret : tree_attributes(m->tree, m->tree_set, m->tree_clear, AT_RECURSIVE);
}

/*
 * A copy of what another container sees at a path. Only a mount of our own namespace can be copied, so the helper
 * goes there and comes back; it resolves the path as that container would, without leaving its root.
 */
static int shared_source_open(struct hako_launch *l, const struct hako_mount *m)
{
	hako_auto_close int home = openat(l->proc, "self/ns/mnt", O_RDONLY | O_CLOEXEC);
	hako_auto_close int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	hako_auto_close int foreign_root = -1;
	hako_auto_close int place = -1;
	int tree, ret;

	if (home < 0 || root < 0)
		return -errno;
	ret = hako_setns(l->fds[m->namespace_fd], CLONE_NEWNS);
	if (ret < 0)
		return ret;
	foreign_root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	place = foreign_root < 0 ? -errno : hako_root_open(foreign_root, m->source, O_PATH, 0);
	tree = place < 0 ? place : hako_tree_clone(place, "", AT_EMPTY_PATH | AT_RECURSIVE);
	ret = hako_setns(home, CLONE_NEWNS);
	if (!ret && (fchdir(root) < 0 || chroot(".") < 0))
		ret = -errno;
	/* Nothing further may happen in the other container's file system. */
	if (ret < 0)
		_exit(1);
	return tree;
}

static int bind_source_open(struct hako_launch *l, struct hako_mount *m)
{
	if (m->kind == HAKO_MOUNT_SHARED)
		return shared_source_open(l, m);
	if (m->kind == HAKO_MOUNT_CGROUP) {
		if (l->request->cgroup == HAKO_NO_FD)
			return -EINVAL;
		return hako_tree_clone(l->fds[l->request->cgroup], "", AT_EMPTY_PATH);
	}
	return hako_tree_clone(AT_FDCWD, m->source, m->kind == HAKO_MOUNT_BIND_TREE ? AT_RECURSIVE : 0);
}

static bool is_bind(const struct hako_launch *l, const struct hako_mount *m)
{
	return m->kind == HAKO_MOUNT_BIND || m->kind == HAKO_MOUNT_BIND_TREE || m->kind == HAKO_MOUNT_SHARED ||
	       (m->kind == HAKO_MOUNT_CGROUP && !l->in_cgroupns);
}

/* Shows the owners of a bind mount's files as its map says (mount_setattr(2), MOUNT_ATTR_IDMAP). */
static int mount_map_apply(struct hako_launch *l, const struct hako_mount *m)
{
	const struct hako_mount_map *map;
	hako_auto_close int userns = -1;
	struct mount_attr attr = { .attr_set = MOUNT_ATTR_IDMAP };

	if (!m->map)
		return 0;
	map = &l->request->mount_maps[m->map - 1];
	userns = hako_userns_open(l, map);
	if (userns < 0)
		return userns;
	attr.userns_fd = (uint64_t)userns;
	return hako_result(syscall(SYS_mount_setattr, m->tree, "", AT_EMPTY_PATH | (map->recursive ? AT_RECURSIVE : 0),
				   &attr, sizeof(attr)));
}

static int null_open(void)
{
	hako_auto_close int tree = hako_tree_clone(AT_FDCWD, "/dev/null", 0);
	struct stat st;
	int ret = tree;

	if (tree < 0)
		return tree;
	if (fstat(tree, &st) < 0)
		return -errno;
	if (!S_ISCHR(st.st_mode) || st.st_rdev != makedev(1, 3))
		return -ENODEV;
	tree = -1;
	return ret;
}

int hako_sources_open(struct hako_launch *l)
{
	struct hako_request *q = l->request;

	l->root_tree = hako_tree_clone(AT_FDCWD, q->root, AT_RECURSIVE);
	if (l->root_tree < 0)
		return hako_fail(l, HAKO_STEP_ROOT, l->root_tree, "%s", q->root);
	l->null_tree = null_open();
	if (l->null_tree < 0)
		return hako_fail(l, HAKO_STEP_MASKED, l->null_tree, "/dev/null");
	for (uint32_t i = 0; i < q->mount_count; i++) {
		struct hako_mount *m = &q->mounts[i];
		int ret;

		if (!is_bind(l, m))
			continue;
		m->tree = bind_source_open(l, m);
		if (m->tree < 0)
			return hako_fail(l, HAKO_STEP_MOUNT, m->tree, "%s (source %s)", m->target, m->source);
		ret = mount_attributes(m);
		if (ret < 0)
			return hako_fail(l, HAKO_STEP_MOUNT, ret, "%s (attributes)", m->target);
		ret = mount_map_apply(l, m);
		if (ret < 0)
			return hako_fail(l, HAKO_STEP_MOUNT, ret, "%s (ID map)", m->target);
	}
	return 0;
}

/* Hands the options to a file system context; "key=value" is a string, anything else a flag. */
static int context_configure(int context, const struct hako_mount *m)
{
	const char *option = m->options;
	int ret = 0;

	if (m->source[0])
		ret = hako_fsconfig(context, FSCONFIG_SET_STRING, "source", m->source);
	for (uint32_t i = 0; !ret && i < m->option_count; i++, option += strlen(option) + 1) {
		const char *value = strchr(option, '=');
		char key[HAKO_PATH_MAX + 1];

		if (!value) {
			ret = hako_fsconfig(context, FSCONFIG_SET_FLAG, option, NULL);
			continue;
		}
		memcpy(key, option, (size_t)(value - option));
		key[value - option] = 0;
		ret = hako_fsconfig(context, FSCONFIG_SET_STRING, key, value + 1);
	}
	return ret ? ret : hako_fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL);
}

/* The kernel's own words on a failed configuration ("e tmpfs: Bad value for 'size'"), or "". */
static void context_message(int context, char *message, size_t size)
{
	ssize_t length = context < 0 ? 0 : read(context, message, size - 1);

	message[length > 0 ? length : 0] = 0;
	message[strcspn(message, "\n")] = 0;
}

static int filesystem_create(struct hako_launch *l, struct hako_mount *m)
{
	const char *type = m->kind == HAKO_MOUNT_CGROUP ? "cgroup2" : m->type;
	hako_auto_close int context = hako_fsopen(type);
	char message[128];
	int ret;

	if (context < 0)
		return hako_fail(l, HAKO_STEP_MOUNT, context, "%s (file system %s)", m->target, type);
	ret = context_configure(context, m);
	if (ret >= 0)
		ret = m->tree = hako_fsmount(context);
	if (ret >= 0)
		ret = mount_attributes(m);
	if (ret >= 0)
		return 0;
	context_message(context, message, sizeof(message));
	return hako_fail(l, HAKO_STEP_MOUNT, ret, "%s (file system %s%s%s)", m->target, type,
			 message[0] ? ": " : "", message);
}

int hako_filesystems_create(struct hako_launch *l)
{
	struct hako_request *q = l->request;

	for (uint32_t i = 0; i < q->mount_count; i++) {
		int ret = is_bind(l, &q->mounts[i]) ? 0 : filesystem_create(l, &q->mounts[i]);

		if (ret)
			return ret;
	}
	return 0;
}

/* Over the root directory itself nothing may be mounted: it would part "/" from what processes call "/". */
static bool is_root(int root, const struct stat *target)
{
	struct stat st;

	return fstat(root, &st) < 0 || (st.st_dev == target->st_dev && st.st_ino == target->st_ino);
}

int hako_tree_attach_at(struct hako_launch *l, int tree, const char *path, uint64_t resolve)
{
	hako_auto_close int target = -1;
	struct stat source, st;

	if (fstat(tree, &source) < 0)
		return -errno;
	target = hako_root_make(l->root, path, S_ISDIR(source.st_mode));
	if (target >= 0 && resolve) {
		close(target);
		target = hako_root_open(l->root, path, O_PATH, resolve);
	}
	if (target < 0)
		return target;
	if (fstat(target, &st) < 0)
		return -errno;
	if (S_ISDIR(source.st_mode) != S_ISDIR(st.st_mode))
		return -ENOTDIR;
	return is_root(l->root, &st) ? -EINVAL : hako_tree_attach(tree, target);
}

/* A tmpfs over a directory takes over its mode, unless the request names one. */
static int tmpfs_mode_keep(struct hako_launch *l, const struct hako_mount *m)
{
	const char *option = m->options;
	hako_auto_close int target = -1;
	struct stat st;

	if (m->kind != HAKO_MOUNT_FILESYSTEM || strcmp(m->type, "tmpfs"))
		return 0;
	for (uint32_t i = 0; i < m->option_count; i++, option += strlen(option) + 1) {
		if (!strncmp(option, "mode=", 5))
			return 0;
	}
	target = hako_root_open(l->root, m->target, O_PATH | O_DIRECTORY, 0);
	if (target < 0 || m->attr_set & MOUNT_ATTR_RDONLY)
		return 0;
	if (fstat(target, &st) < 0 || fchmodat(m->tree, ".", st.st_mode & 07777, 0) < 0)
		return -errno;
	return 0;
}

static int mount_attach(struct hako_launch *l, struct hako_mount *m)
{
	bool kernel_tree = m->kind == HAKO_MOUNT_CGROUP || !strcmp(m->type, "proc") || !strcmp(m->type, "sysfs");
	int ret = tmpfs_mode_keep(l, m);

	/* An image that makes /proc a link must not decide where masked and read-only paths are looked for. */
	if (!ret)
		ret = hako_tree_attach_at(l, m->tree, m->target, kernel_tree ? RESOLVE_NO_SYMLINKS : 0);
	if (!ret && is_bind(l, m) && !m->tree_propagation && !m->propagation)
		ret = hako_tree_change(m->tree, AT_RECURSIVE, 0, 0, MS_PRIVATE);
	if (!ret && m->tree_propagation)
		ret = hako_tree_change(m->tree, AT_RECURSIVE, 0, 0, m->tree_propagation);
	if (!ret && m->propagation)
		ret = hako_tree_change(m->tree, 0, 0, 0, m->propagation);
	hako_close(&m->tree);
	return ret < 0 ? hako_fail(l, HAKO_STEP_MOUNT, ret, "%s", m->target) : 0;
}

int hako_mounts_attach(struct hako_launch *l)
{
	struct hako_request *q = l->request;

	for (uint32_t i = 0; i < q->mount_count; i++) {
		int ret = mount_attach(l, &q->mounts[i]);

		if (ret)
			return ret;
	}
	return 0;
}

/* An empty read-only tmpfs, for a masked directory. */
static int empty_directory_create(void)
{
	hako_auto_close int context = hako_fsopen("tmpfs");
	hako_auto_close int tree = -1;
	int ret;

	if (context < 0)
		return context;
	ret = hako_fsconfig(context, FSCONFIG_SET_STRING, "nr_blocks", "1");
	if (!ret)
		ret = hako_fsconfig(context, FSCONFIG_SET_STRING, "nr_inodes", "1");
	if (!ret)
		ret = hako_fsconfig(context, FSCONFIG_SET_STRING, "mode", "555");
	if (!ret)
		ret = hako_fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL);
	if (ret)
		return ret;
	tree = hako_fsmount(context);
	if (tree < 0)
		return tree;
	ret = hako_tree_change(tree, 0,
			       MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC, 0, 0);
	if (ret < 0)
		return ret;
	ret = tree;
	tree = -1;
	return ret;
}

/*
 * The first masked file gets the detached mount of /dev/null itself, the others copies of it: only a mount that
 * is attached in our namespace can be copied.
 */
static int null_attach(struct hako_launch *l, int target)
{
	hako_auto_close int copy = -1;
	int ret;

	if (!l->null_attached) {
		ret = hako_tree_attach(l->null_tree, target);
		l->null_attached = ret >= 0;
		return ret;
	}
	copy = hako_tree_clone(l->null_tree, "", AT_EMPTY_PATH);
	return copy < 0 ? copy : hako_tree_attach(copy, target);
}

static int path_mask(struct hako_launch *l, const char *path)
{
	hako_auto_close int target = hako_root_open(l->root, path, O_PATH, 0);
	hako_auto_close int tree = -1;
	struct stat st;

	if (target == -ENOENT || target == -ENOTDIR)
		return 0;
	if (target < 0)
		return target;
	if (fstat(target, &st) < 0)
		return -errno;
	if (!S_ISDIR(st.st_mode))
		return null_attach(l, target);
	if (is_root(l->root, &st))
		return -EINVAL;
	tree = empty_directory_create();
	return tree < 0 ? tree : hako_tree_attach(tree, target);
}

static int path_make_readonly(struct hako_launch *l, const char *path)
{
	hako_auto_close int target = hako_root_open(l->root, path, O_PATH, 0);
	hako_auto_close int tree = -1;
	int ret;

	if (target == -ENOENT || target == -ENOTDIR)
		return 0;
	if (target < 0)
		return target;
	tree = hako_tree_clone(target, "", AT_EMPTY_PATH | AT_RECURSIVE);
	if (tree < 0)
		return tree;
	ret = hako_tree_change(tree, AT_RECURSIVE, MOUNT_ATTR_RDONLY, 0, 0);
	return ret < 0 ? ret : hako_tree_attach(tree, target);
}

int hako_paths_protect(struct hako_launch *l)
{
	const struct hako_request *q = l->request;
	int ret;

	for (uint32_t i = 0; i < q->readonly_count; i++) {
		ret = path_make_readonly(l, q->readonly[i]);
		if (ret < 0)
			return hako_fail(l, HAKO_STEP_READONLY, ret, "%s", q->readonly[i]);
	}
	for (uint32_t i = 0; i < q->masked_count; i++) {
		ret = path_mask(l, q->masked[i]);
		if (ret < 0)
			return hako_fail(l, HAKO_STEP_MASKED, ret, "%s", q->masked[i]);
	}
	if (q->flags & HAKO_FLAG_READONLY_ROOT) {
		ret = hako_tree_change(l->root, 0, MOUNT_ATTR_RDONLY, 0, 0);
		if (ret < 0)
			return hako_fail(l, HAKO_STEP_READONLY, ret, "/");
	}
	return 0;
}
