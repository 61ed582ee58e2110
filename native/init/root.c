// SPDX-License-Identifier: Apache-2.0
/* The container's root directory: entering it, and finding and making paths in it. */
#define _GNU_SOURCE

#include <string.h>
#include <sys/stat.h>

#include "../kernel.h"
#include "launch.h"
#include "wire.h"

#define IN_ROOT (RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)

int hako_root_open(int root, const char *path, uint64_t flags, uint64_t resolve)
{
	return hako_openat2(root, path, flags, 0, IN_ROOT | resolve);
}

/* Makes the last component of a path, whose parent is open, and opens it without following anything. */
static int make_component(int parent, const char *name, bool directory)
{
	hako_auto_close int file = -1;

	if (directory) {
		if (mkdirat(parent, name, 0755) < 0)
			return -errno;
	} else {
		file = openat(parent, name, O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC | O_WRONLY, 0644);
		if (file < 0)
			return -errno;
	}
	return hako_result(openat(parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC));
}

/*
 * Goes down the path; each existing prefix is resolved from the root, so that its links stay inside. A link
 * that leads nowhere ends in EEXIST.
 */
static int make_path(int root, const char *path, bool directory)
{
	char prefix[HAKO_PATH_MAX + 1];
	size_t end = 0;
	hako_auto_close int at = hako_root_open(root, ".", O_PATH, 0);
	int made;

	if (at < 0)
		return at;
	strcpy(prefix, path);
	for (;;) {
		size_t start = end + strspn(path + end, "/");
		bool last;
		int next;

		if (!path[start])
			break;
		end = start + strcspn(path + start, "/");
		last = !path[end + strspn(path + end, "/")];
		prefix[end] = 0;
		next = hako_root_open(root, prefix, O_PATH, 0);
		if (next == -ENOENT)
			next = make_component(at, prefix + start, directory || !last);
		if (next < 0)
			return next;
		prefix[end] = path[end];
		close(at);
		at = next;
	}
	made = at;
	at = -1;
	return made;
}

int hako_root_make(int root, const char *path, bool directory)
{
	int fd = hako_root_open(root, path, O_PATH, 0);

	return fd == -ENOENT ? make_path(root, path, directory) : fd;
}

static uint64_t first_propagation(const struct hako_launch *l)
{
	return l->request->root_propagation == MS_SLAVE ? MS_SLAVE : MS_PRIVATE;
}

int hako_root_place(struct hako_launch *l, bool over_outer)
{
	hako_auto_close int outer = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	hako_auto_close int place = -1;
	int ret;

	if (outer < 0)
		return hako_fail(l, HAKO_STEP_ROOT, -errno, "/");
	ret = hako_tree_change(outer, AT_RECURSIVE, 0, 0, MS_PRIVATE);
	if (ret < 0)
		return hako_fail(l, HAKO_STEP_ROOT, ret, "outer mounts made private");
	if (!over_outer) {
		place = open(l->request->root, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (place < 0)
			return hako_fail(l, HAKO_STEP_ROOT, -errno, "%s", l->request->root);
	}
	ret = hako_tree_attach(l->root_tree, over_outer ? outer : place);
	if (ret < 0)
		return hako_fail(l, HAKO_STEP_ROOT, ret, "attach");
	ret = hako_tree_change(l->root_tree, AT_RECURSIVE, 0, 0, first_propagation(l));
	if (ret < 0)
		return hako_fail(l, HAKO_STEP_ROOT, ret, "propagation");
	l->root = fcntl(l->root_tree, F_DUPFD_CLOEXEC, 0);
	return l->root < 0 ? hako_fail(l, HAKO_STEP_ROOT, -errno, "root") : 0;
}

/* From here on nothing of the outer file system can be named; what is needed of it is held open. */
int hako_root_enter(struct hako_launch *l)
{
	uint32_t wanted = l->request->root_propagation;
	int ret;

	if (fchdir(l->root_tree) < 0 || syscall(SYS_pivot_root, ".", ".") < 0)
		return hako_fail(l, HAKO_STEP_ROOT, -errno, "pivot_root");
	/* The old root now lies over the new one: "." reaches it. */
	if (hako_umount(".", MNT_DETACH) < 0 || chdir("/") < 0)
		return hako_fail(l, HAKO_STEP_ROOT, -errno, "detach the old root");
	hako_close(&l->root);
	l->root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (l->root < 0)
		return hako_fail(l, HAKO_STEP_ROOT, -errno, "open the new root");
	if (wanted && wanted != first_propagation(l)) {
		ret = hako_tree_change(l->root, AT_RECURSIVE, 0, 0, wanted);
		if (ret < 0)
			return hako_fail(l, HAKO_STEP_ROOT, ret, "propagation");
	}
	return 0;
}
