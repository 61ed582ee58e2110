// SPDX-License-Identifier: Apache-2.0
/*
 * The container's /dev: the nodes that every Linux container has (OCI runtime specification, config-linux,
 * "Default Devices"), its links, and the devices of the request. Inside a user namespace nodes cannot be
 * made; there the outer nodes of the same path are bind-mounted.
 */
#define _GNU_SOURCE

#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "../kernel.h"
#include "launch.h"
#include "wire.h"

static struct hako_device default_devices[] = {
	{ .mode = S_IFCHR | 0666, .major = 1, .minor = 3, .path = "/dev/null", .tree = -1 },
	{ .mode = S_IFCHR | 0666, .major = 1, .minor = 5, .path = "/dev/zero", .tree = -1 },
	{ .mode = S_IFCHR | 0666, .major = 1, .minor = 7, .path = "/dev/full", .tree = -1 },
	{ .mode = S_IFCHR | 0666, .major = 1, .minor = 8, .path = "/dev/random", .tree = -1 },
	{ .mode = S_IFCHR | 0666, .major = 1, .minor = 9, .path = "/dev/urandom", .tree = -1 },
	{ .mode = S_IFCHR | 0666, .major = 5, .minor = 0, .path = "/dev/tty", .tree = -1 },
};

static const struct {
	const char *path, *target;
} links[] = {
	{ "fd", "/proc/self/fd" },
	{ "stdin", "/proc/self/fd/0" },
	{ "stdout", "/proc/self/fd/1" },
	{ "stderr", "/proc/self/fd/2" },
	{ "core", "/proc/kcore" },
	{ "ptmx", "pts/ptmx" },
};

/* A /dev that is bound from outside is complete as it is. */
static bool dev_is_bound(const struct hako_request *q)
{
	for (uint32_t i = 0; i < q->mount_count; i++) {
		const struct hako_mount *m = &q->mounts[i];

		if ((m->kind == HAKO_MOUNT_BIND || m->kind == HAKO_MOUNT_BIND_TREE) && !strcmp(m->target, "/dev"))
			return true;
	}
	return false;
}

static int sources_open(struct hako_launch *l, struct hako_device *devices, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (S_ISFIFO(devices[i].mode))
			continue;
		devices[i].tree = hako_tree_clone(AT_FDCWD, devices[i].path, 0);
		if (devices[i].tree < 0)
			return hako_fail(l, HAKO_STEP_DEVICE, devices[i].tree, "%s (source)", devices[i].path);
	}
	return 0;
}

int hako_device_sources_open(struct hako_launch *l)
{
	struct hako_request *q = l->request;
	int ret;

	if (!l->in_userns && !(q->new_namespaces & CLONE_NEWUSER))
		return 0;
	ret = dev_is_bound(q) ? 0 : sources_open(l, default_devices, HAKO_ARRAY_LENGTH(default_devices));
	return ret ? ret : sources_open(l, q->devices, q->device_count);
}

static int node_make(int parent, const char *name, const struct hako_device *d)
{
	dev_t number = S_ISFIFO(d->mode) ? 0 : makedev(d->major, d->minor);
	struct stat st;

	if (mknodat(parent, name, d->mode, number) < 0) {
		if (errno != EEXIST)
			return -errno;
		if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			return -errno;
		if ((st.st_mode & S_IFMT) != (d->mode & S_IFMT) || st.st_rdev != number)
			return -EEXIST;
	}
	return hako_result(fchownat(parent, name, d->uid, d->gid, AT_SYMLINK_NOFOLLOW));
}

static int device_create(struct hako_launch *l, struct hako_device *d)
{
	const char *name = strrchr(d->path, '/') + 1;
	char directory[HAKO_PATH_MAX + 1];
	hako_auto_close int parent = -1;
	int ret;

	if (d->tree >= 0) {
		ret = hako_tree_attach_at(l, d->tree, d->path, 0);
		hako_close(&d->tree);
		return ret;
	}
	if (!name[0] || !strcmp(name, ".") || !strcmp(name, ".."))
		return -EINVAL;
	memcpy(directory, d->path, (size_t)(name - d->path));
	directory[name - d->path] = 0;
	parent = hako_root_make(l->root, directory, true);
	return parent < 0 ? parent : node_make(parent, name, d);
}

static int devices_create(struct hako_launch *l, struct hako_device *devices, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		int ret = device_create(l, &devices[i]);

		if (ret)
			return hako_fail(l, HAKO_STEP_DEVICE, ret, "%s", devices[i].path);
	}
	return 0;
}

static int links_create(struct hako_launch *l)
{
	hako_auto_close int dev = hako_root_make(l->root, "/dev", true);

	if (dev < 0)
		return hako_fail(l, HAKO_STEP_DEVICE, dev, "/dev");
	for (size_t i = 0; i < HAKO_ARRAY_LENGTH(links); i++) {
		if (symlinkat(links[i].target, dev, links[i].path) < 0 && errno != EEXIST)
			return hako_fail(l, HAKO_STEP_DEVICE, -errno, "/dev/%s", links[i].path);
	}
	return 0;
}

int hako_devices_create(struct hako_launch *l)
{
	struct hako_request *q = l->request;
	int ret = 0;

	if (!dev_is_bound(q)) {
		ret = devices_create(l, default_devices, HAKO_ARRAY_LENGTH(default_devices));
		if (!ret)
			ret = links_create(l);
	}
	return ret ? ret : devices_create(l, q->devices, q->device_count);
}
