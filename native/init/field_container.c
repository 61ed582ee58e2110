// SPDX-License-Identifier: Apache-2.0
/* Fields of a request that set a container up: namespaces, root, mounts, devices, names. */
#include "field.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include <linux/mount.h>
#include <linux/sched.h>

#include "reader.h"
#include "wire.h"

#define NAMESPACES (CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET | CLONE_NEWCGROUP | \
		    CLONE_NEWUSER | CLONE_NEWTIME)
#define ATTRIBUTES (MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC | \
		    MOUNT_ATTR__ATIME | MOUNT_ATTR_NODIRATIME | MOUNT_ATTR_NOSYMFOLLOW)

static bool one_bit_of(uint32_t value, uint32_t mask)
{
	return value && !(value & (value - 1)) && !(value & ~mask);
}

void hako_field_new(struct hako_request *q, struct hako_reader *r)
{
	q->new_namespaces = hako_take_u32(r);
	hako_reader_check(r, !(q->new_namespaces & ~(uint32_t)NAMESPACES));
}

void hako_field_join(struct hako_request *q, struct hako_reader *r)
{
	struct hako_join *join = hako_take_slot(r, q->joins, q->join_count);

	if (!join)
		return;
	join->type = hako_take_u32(r);
	join->fd = hako_take_u32(r);
	hako_reader_check(r, one_bit_of(join->type, NAMESPACES & ~(uint32_t)CLONE_NEWNS));
}

void hako_field_target(struct hako_request *q, struct hako_reader *r)
{
	q->target_fd = hako_take_u32(r);
	q->target_pid = (int32_t)hako_take_u32(r);
	hako_reader_check(r, q->target_pid > 0);
}

static void parse_id_map(struct hako_reader *r, struct hako_id_map *maps, uint32_t *count)
{
	struct hako_id_map *map;

	if (*count == HAKO_ID_MAPS_MAX) {
		r->error = -E2BIG;
		return;
	}
	map = &maps[(*count)++];
	map->inside = hako_take_u32(r);
	map->outside = hako_take_u32(r);
	map->count = hako_take_u32(r);
	hako_reader_check(r, map->count > 0);
}

void hako_field_uid_map(struct hako_request *q, struct hako_reader *r)
{
	parse_id_map(r, q->uid_maps, &q->uid_map_count);
}

void hako_field_gid_map(struct hako_request *q, struct hako_reader *r)
{
	parse_id_map(r, q->gid_maps, &q->gid_map_count);
}

void hako_field_cgroup(struct hako_request *q, struct hako_reader *r)
{
	q->cgroup = hako_take_u32(r);
}

static bool propagation_good(uint32_t value)
{
	return !value || one_bit_of(value, MS_SHARED | MS_SLAVE | MS_PRIVATE | MS_UNBINDABLE);
}

void hako_field_root(struct hako_request *q, struct hako_reader *r)
{
	q->root_propagation = hako_take_u32(r);
	q->root = hako_take_absolute(r);
	hako_reader_check(r, propagation_good(q->root_propagation));
}

void hako_field_mount(struct hako_request *q, struct hako_reader *r)
{
	struct hako_mount *mount = hako_take_slot(r, q->mounts, q->mount_count);

	if (!mount)
		return;
	mount->kind = hako_take_u32(r);
	mount->attr_set = hako_take_u32(r);
	mount->attr_clear = hako_take_u32(r);
	mount->tree_set = hako_take_u32(r);
	mount->tree_clear = hako_take_u32(r);
	mount->propagation = hako_take_u32(r);
	mount->tree_propagation = hako_take_u32(r);
	mount->target = hako_take_absolute(r);
	mount->source = hako_take_string(r, HAKO_PATH_MAX);
	mount->type = hako_take_string(r, HAKO_PATH_MAX);
	mount->options = (const char *)r->at;
	mount->tree = -1;
	while (!r->error && hako_reader_left(r)) {
		hako_take_string(r, HAKO_PATH_MAX);
		if (++mount->option_count > HAKO_OPTIONS_MAX)
			r->error = -E2BIG;
	}
	hako_reader_check(r, mount->kind <= HAKO_MOUNT_CGROUP);
	hako_reader_check(r, !((mount->attr_set | mount->attr_clear | mount->tree_set | mount->tree_clear) &
		   ~(uint32_t)ATTRIBUTES));
	hako_reader_check(r, propagation_good(mount->propagation) && propagation_good(mount->tree_propagation));
	hako_reader_check(r, mount->target[strspn(mount->target, "/")] != 0);
}

void hako_field_device(struct hako_request *q, struct hako_reader *r)
{
	struct hako_device *device = hako_take_slot(r, q->devices, q->device_count);

	if (!device)
		return;
	device->mode = hako_take_u32(r);
	device->major = hako_take_u32(r);
	device->minor = hako_take_u32(r);
	device->uid = hako_take_u32(r);
	device->gid = hako_take_u32(r);
	device->path = hako_take_absolute(r);
	device->tree = -1;
	hako_reader_check(r, S_ISCHR(device->mode) || S_ISBLK(device->mode) || S_ISFIFO(device->mode));
	hako_reader_check(r, !(device->mode & ~(uint32_t)(S_IFMT | 07777)));
}

void hako_field_masked(struct hako_request *q, struct hako_reader *r)
{
	const char **path = hako_take_slot(r, q->masked, q->masked_count);

	if (path)
		*path = hako_take_absolute(r);
}

void hako_field_readonly(struct hako_request *q, struct hako_reader *r)
{
	const char **path = hako_take_slot(r, q->readonly, q->readonly_count);

	if (path)
		*path = hako_take_absolute(r);
}

void hako_field_sysctl(struct hako_request *q, struct hako_reader *r)
{
	struct hako_sysctl *sysctl = hako_take_slot(r, q->sysctls, q->sysctl_count);

	if (!sysctl)
		return;
	sysctl->path = hako_take_string(r, HAKO_PATH_MAX);
	sysctl->value = hako_take_string(r, HAKO_PATH_MAX);
	hako_reader_check(r, sysctl->path[0] && sysctl->path[0] != '/');
}

void hako_field_hostname(struct hako_request *q, struct hako_reader *r)
{
	q->hostname = hako_take_string(r, HAKO_NAME_MAX);
}

void hako_field_domainname(struct hako_request *q, struct hako_reader *r)
{
	q->domainname = hako_take_string(r, HAKO_NAME_MAX);
}

void hako_field_time_offset(struct hako_request *q, struct hako_reader *r)
{
	struct hako_time_offset *offset = hako_take_slot(r, q->time_offsets, q->time_offset_count);

	if (!offset)
		return;
	offset->clock = hako_take_u32(r);
	offset->seconds = (int64_t)hako_take_u64(r);
	offset->nanoseconds = hako_take_u32(r);
	hako_reader_check(r, offset->clock == CLOCK_MONOTONIC || offset->clock == CLOCK_BOOTTIME);
	hako_reader_check(r, offset->nanoseconds < 1000000000);
}

void hako_field_mount_map(struct hako_request *q, struct hako_reader *r)
{
	struct hako_mount_map *map = hako_take_slot(r, q->mount_maps, q->mount_map_count);
	uint32_t mount;
	size_t total;

	if (!map)
		return;
	mount = hako_take_u32(r);
	map->recursive = hako_take_u32(r);
	map->uid_count = hako_take_u32(r);
	total = hako_reader_left(r) / sizeof(struct hako_id_map);
	if (total > 2 * HAKO_ID_MAPS_MAX || map->uid_count > HAKO_ID_MAPS_MAX)
		r->error = -E2BIG;
	hako_reader_check(r, mount < q->mount_count && map->uid_count > 0 && map->uid_count < total);
	if (r->error)
		return;
	hako_reader_check(r, q->mounts[mount].kind == HAKO_MOUNT_BIND || q->mounts[mount].kind == HAKO_MOUNT_BIND_TREE);
	map->gid_count = (uint32_t)total - map->uid_count;
	if (map->gid_count > HAKO_ID_MAPS_MAX)
		r->error = -E2BIG;
	map->uids = r->at;
	map->gids = map->uids + map->uid_count * sizeof(struct hako_id_map);
	if (!r->error)
		r->at += total * sizeof(struct hako_id_map);
	q->mounts[mount].map = q->mount_map_count;
}

void hako_field_shared(struct hako_request *q, struct hako_reader *r)
{
	struct hako_mount *mount = hako_take_slot(r, q->mounts, q->mount_count);

	if (!mount)
		return;
	mount->kind = HAKO_MOUNT_SHARED;
	mount->namespace_fd = hako_take_u32(r);
	mount->source = hako_take_absolute(r);
	mount->target = hako_take_absolute(r);
	mount->type = "";
	mount->options = "";
	mount->tree = -1;
	hako_reader_check(r, mount->target[strspn(mount->target, "/")] != 0);
}
