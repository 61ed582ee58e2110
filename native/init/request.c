// SPDX-License-Identifier: Apache-2.0
/* The request parser: bytes from the agent become a checked struct hako_request. */
#include "request.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>

#include <linux/mount.h>
#include <linux/sched.h>
#include <linux/seccomp.h>

#include "reader.h"
#include "wire.h"

#define NAMESPACES (CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET | CLONE_NEWCGROUP | \
		    CLONE_NEWUSER | CLONE_NEWTIME)
#define ATTRIBUTES (MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC | \
		    MOUNT_ATTR__ATIME | MOUNT_ATTR_NODIRATIME | MOUNT_ATTR_NOSYMFOLLOW)

/* The next free entry of a limited array, or NULL with r->error set. */
#define take_slot(r, array, count) \
	((count) < sizeof(array) / sizeof((array)[0]) ? &(array)[(count)++] : ((r)->error = -E2BIG, NULL))

static bool one_bit_of(uint32_t value, uint32_t mask)
{
	return value && !(value & (value - 1)) && !(value & ~mask);
}

static void parse_flags(struct hako_request *q, struct hako_reader *r)
{
	q->flags = hako_take_u32(r);
	hako_reader_check(r, !(q->flags & ~(HAKO_FLAG_TERMINAL | HAKO_FLAG_NO_NEW_PRIVS | HAKO_FLAG_READONLY_ROOT |
						    HAKO_FLAG_HOLD)));
}

static void parse_args(struct hako_request *q, struct hako_reader *r)
{
	q->args = hako_take_strings(r, &q->arg_count);
}

static void parse_env(struct hako_request *q, struct hako_reader *r)
{
	q->env = hako_take_strings(r, &q->env_count);
}

static void parse_cwd(struct hako_request *q, struct hako_reader *r)
{
	q->cwd = hako_take_absolute(r);
}

static void parse_user(struct hako_request *q, struct hako_reader *r)
{
	struct hako_user *user = &q->user;
	size_t count;

	user->uid = hako_take_u32(r);
	user->gid = hako_take_u32(r);
	user->umask = hako_take_u32(r);
	hako_reader_check(r, user->uid != UINT32_MAX && user->gid != UINT32_MAX && user->umask <= 0777);
	count = hako_reader_left(r) / sizeof(uint32_t);
	if (count > HAKO_GROUPS_MAX)
		r->error = -E2BIG;
	if (r->error)
		return;
	user->groups = calloc(count + 1, sizeof(uint32_t));
	if (!user->groups) {
		r->error = -ENOMEM;
		return;
	}
	for (size_t i = 0; i < count; i++)
		user->groups[i] = hako_take_u32(r);
	user->group_count = (uint32_t)count;
}

static void parse_capabilities(struct hako_request *q, struct hako_reader *r)
{
	struct hako_capabilities *caps = &q->capabilities;

	caps->bounding = hako_take_u64(r);
	caps->effective = hako_take_u64(r);
	caps->inheritable = hako_take_u64(r);
	caps->permitted = hako_take_u64(r);
	caps->ambient = hako_take_u64(r);
}

static void parse_rlimit(struct hako_request *q, struct hako_reader *r)
{
	struct hako_rlimit *limit = take_slot(r, q->rlimits, q->rlimit_count);

	if (!limit)
		return;
	limit->resource = hako_take_u32(r);
	limit->soft = hako_take_u64(r);
	limit->hard = hako_take_u64(r);
	hako_reader_check(r, limit->resource < RLIM_NLIMITS && limit->soft <= limit->hard);
}

static void parse_oom_score(struct hako_request *q, struct hako_reader *r)
{
	q->oom_score = (int32_t)hako_take_u32(r);
	hako_reader_check(r, q->oom_score >= -1000 && q->oom_score <= 1000);
}

static void parse_console(struct hako_request *q, struct hako_reader *r)
{
	q->rows = hako_take_u32(r);
	q->columns = hako_take_u32(r);
	hako_reader_check(r, q->rows <= UINT16_MAX && q->columns <= UINT16_MAX);
}

static void parse_stdio(struct hako_request *q, struct hako_reader *r)
{
	for (int i = 0; i < 3; i++)
		q->stdio[i] = hako_take_u32(r);
}

static void parse_new(struct hako_request *q, struct hako_reader *r)
{
	q->new_namespaces = hako_take_u32(r);
	hako_reader_check(r, !(q->new_namespaces & ~(uint32_t)NAMESPACES));
}

static void parse_join(struct hako_request *q, struct hako_reader *r)
{
	struct hako_join *join = take_slot(r, q->joins, q->join_count);

	if (!join)
		return;
	join->type = hako_take_u32(r);
	join->fd = hako_take_u32(r);
	hako_reader_check(r, one_bit_of(join->type, NAMESPACES & ~(uint32_t)CLONE_NEWNS));
}

static void parse_target(struct hako_request *q, struct hako_reader *r)
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

static void parse_uid_map(struct hako_request *q, struct hako_reader *r)
{
	parse_id_map(r, q->uid_maps, &q->uid_map_count);
}

static void parse_gid_map(struct hako_request *q, struct hako_reader *r)
{
	parse_id_map(r, q->gid_maps, &q->gid_map_count);
}

static void parse_cgroup(struct hako_request *q, struct hako_reader *r)
{
	q->cgroup = hako_take_u32(r);
}

static bool propagation_good(uint32_t value)
{
	return !value || one_bit_of(value, MS_SHARED | MS_SLAVE | MS_PRIVATE | MS_UNBINDABLE);
}

static void parse_root(struct hako_request *q, struct hako_reader *r)
{
	q->root_propagation = hako_take_u32(r);
	q->root = hako_take_absolute(r);
	hako_reader_check(r, propagation_good(q->root_propagation));
}

static void parse_mount(struct hako_request *q, struct hako_reader *r)
{
	struct hako_mount *mount = take_slot(r, q->mounts, q->mount_count);

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

static void parse_device(struct hako_request *q, struct hako_reader *r)
{
	struct hako_device *device = take_slot(r, q->devices, q->device_count);

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

static void parse_masked(struct hako_request *q, struct hako_reader *r)
{
	const char **path = take_slot(r, q->masked, q->masked_count);

	if (path)
		*path = hako_take_absolute(r);
}

static void parse_readonly(struct hako_request *q, struct hako_reader *r)
{
	const char **path = take_slot(r, q->readonly, q->readonly_count);

	if (path)
		*path = hako_take_absolute(r);
}

static void parse_sysctl(struct hako_request *q, struct hako_reader *r)
{
	struct hako_sysctl *sysctl = take_slot(r, q->sysctls, q->sysctl_count);

	if (!sysctl)
		return;
	sysctl->path = hako_take_string(r, HAKO_PATH_MAX);
	sysctl->value = hako_take_string(r, HAKO_PATH_MAX);
	hako_reader_check(r, sysctl->path[0] && sysctl->path[0] != '/');
}

static void parse_hostname(struct hako_request *q, struct hako_reader *r)
{
	q->hostname = hako_take_string(r, HAKO_NAME_MAX);
}

static void parse_domainname(struct hako_request *q, struct hako_reader *r)
{
	q->domainname = hako_take_string(r, HAKO_NAME_MAX);
}

static void parse_seccomp(struct hako_request *q, struct hako_reader *r)
{
	size_t size;

	q->seccomp_flags = hako_take_u32(r);
	size = hako_reader_left(r);
	hako_reader_check(r, size && !(size % sizeof(struct sock_filter)));
	hako_reader_check(r, !(q->seccomp_flags & ~(uint32_t)(SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_LOG |
						  SECCOMP_FILTER_FLAG_SPEC_ALLOW)));
	if (!r->error && size / sizeof(struct sock_filter) > BPF_MAXINSNS)
		r->error = -E2BIG;
	if (r->error)
		return;
	q->filter = malloc(size);
	if (!q->filter) {
		r->error = -ENOMEM;
		return;
	}
	hako_take(r, q->filter, size);
	q->filter_length = (uint32_t)(size / sizeof(struct sock_filter));
}

static void parse_time_offset(struct hako_request *q, struct hako_reader *r)
{
	struct hako_time_offset *offset = take_slot(r, q->time_offsets, q->time_offset_count);

	if (!offset)
		return;
	offset->clock = hako_take_u32(r);
	offset->seconds = (int64_t)hako_take_u64(r);
	offset->nanoseconds = hako_take_u32(r);
	hako_reader_check(r, offset->clock == CLOCK_MONOTONIC || offset->clock == CLOCK_BOOTTIME);
	hako_reader_check(r, offset->nanoseconds < 1000000000);
}

static void parse_personality(struct hako_request *q, struct hako_reader *r)
{
	q->personality = hako_take_u32(r);
	q->has_personality = true;
}

static void parse_io_priority(struct hako_request *q, struct hako_reader *r)
{
	q->io_priority = hako_take_u32(r);
	hako_reader_check(r, q->io_priority <= UINT16_MAX);
}

static void parse_scheduler(struct hako_request *q, struct hako_reader *r)
{
	struct hako_scheduler *s = &q->scheduler;

	s->policy = hako_take_u32(r);
	s->nice = (int32_t)hako_take_u32(r);
	s->priority = hako_take_u32(r);
	s->flags = hako_take_u64(r);
	s->runtime = hako_take_u64(r);
	s->deadline = hako_take_u64(r);
	s->period = hako_take_u64(r);
	q->has_scheduler = true;
	hako_reader_check(r, s->policy <= 7 && s->nice >= -20 && s->nice <= 19 && s->priority <= 99);
}

static void parse_label(struct hako_request *q, struct hako_reader *r)
{
	q->label_kind = hako_take_u32(r);
	q->label = hako_take_string(r, HAKO_PATH_MAX);
	hako_reader_check(r, q->label_kind == HAKO_LABEL_APPARMOR || q->label_kind == HAKO_LABEL_SELINUX);
	hako_reader_check(r, q->label[0] != 0);
}

static void parse_hook(struct hako_request *q, struct hako_reader *r)
{
	struct hako_hook *hook = take_slot(r, q->hooks, q->hook_count);
	uint32_t arg_count, count;
	char **strings;

	if (!hook)
		return;
	hook->kind = hako_take_u32(r);
	hook->timeout = hako_take_u32(r);
	arg_count = hako_take_u32(r);
	hook->path = hako_take_absolute(r);
	hook->state_before = hako_take_string(r, HAKO_REQUEST_MAX);
	hook->state_after = hako_take_string(r, HAKO_REQUEST_MAX);
	hako_reader_check(r, hook->kind == HAKO_HOOK_CREATE || hook->kind == HAKO_HOOK_START);
	hako_reader_check(r, hook->timeout <= HAKO_HOOK_TIMEOUT_MAX);
	strings = hako_take_strings(r, &count);
	if (!strings)
		return;
	if (arg_count < 1 || arg_count > count) {
		r->error = -EINVAL;
		free(strings);
		return;
	}
	/* There is room for two entries more: the NULLs behind arguments and environment. */
	memmove(strings + arg_count + 1, strings + arg_count, (count - arg_count) * sizeof(*strings));
	strings[arg_count] = NULL;
	strings[count + 1] = NULL;
	hook->args = strings;
	hook->env = strings + arg_count + 1;
}

static void parse_mount_map(struct hako_request *q, struct hako_reader *r)
{
	struct hako_mount_map *map = take_slot(r, q->mount_maps, q->mount_map_count);
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

static void parse_shared(struct hako_request *q, struct hako_reader *r)
{
	struct hako_mount *mount = take_slot(r, q->mounts, q->mount_count);

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

static const struct {
	void (*parse)(struct hako_request *q, struct hako_reader *r);
	bool repeated;
} fields[HAKO_FIELD_COUNT] = {
	[HAKO_FIELD_FLAGS] = { parse_flags, false },
	[HAKO_FIELD_ARGS] = { parse_args, false },
	[HAKO_FIELD_ENV] = { parse_env, false },
	[HAKO_FIELD_CWD] = { parse_cwd, false },
	[HAKO_FIELD_USER] = { parse_user, false },
	[HAKO_FIELD_CAPABILITIES] = { parse_capabilities, false },
	[HAKO_FIELD_RLIMIT] = { parse_rlimit, true },
	[HAKO_FIELD_OOM_SCORE] = { parse_oom_score, false },
	[HAKO_FIELD_CONSOLE] = { parse_console, false },
	[HAKO_FIELD_STDIO] = { parse_stdio, false },
	[HAKO_FIELD_NEW] = { parse_new, false },
	[HAKO_FIELD_JOIN] = { parse_join, true },
	[HAKO_FIELD_TARGET] = { parse_target, false },
	[HAKO_FIELD_UID_MAP] = { parse_uid_map, true },
	[HAKO_FIELD_GID_MAP] = { parse_gid_map, true },
	[HAKO_FIELD_CGROUP] = { parse_cgroup, false },
	[HAKO_FIELD_ROOT] = { parse_root, false },
	[HAKO_FIELD_MOUNT] = { parse_mount, true },
	[HAKO_FIELD_DEVICE] = { parse_device, true },
	[HAKO_FIELD_MASKED] = { parse_masked, true },
	[HAKO_FIELD_READONLY] = { parse_readonly, true },
	[HAKO_FIELD_SYSCTL] = { parse_sysctl, true },
	[HAKO_FIELD_HOSTNAME] = { parse_hostname, false },
	[HAKO_FIELD_DOMAINNAME] = { parse_domainname, false },
	[HAKO_FIELD_SECCOMP] = { parse_seccomp, false },
	[HAKO_FIELD_TIME_OFFSET] = { parse_time_offset, true },
	[HAKO_FIELD_PERSONALITY] = { parse_personality, false },
	[HAKO_FIELD_IO_PRIORITY] = { parse_io_priority, false },
	[HAKO_FIELD_SCHEDULER] = { parse_scheduler, false },
	[HAKO_FIELD_LABEL] = { parse_label, false },
	[HAKO_FIELD_HOOK] = { parse_hook, true },
	[HAKO_FIELD_MOUNT_MAP] = { parse_mount_map, true },
	[HAKO_FIELD_SHARED] = { parse_shared, true },
};

static int parse_fields(struct hako_request *q, struct hako_reader *all, uint32_t count, const char **why)
{
	uint64_t seen = 0;

	while (count--) {
		uint32_t type = hako_take_u32(all);
		uint32_t length = hako_take_u32(all);
		struct hako_reader field = { .at = all->at };

		*why = "a field header is damaged";
		if (all->error || length > hako_reader_left(all) || type >= HAKO_FIELD_COUNT || !fields[type].parse)
			return -EBADMSG;
		*why = "a field occurs twice";
		if (!fields[type].repeated && seen & 1ull << type)
			return -EBADMSG;
		seen |= 1ull << type;
		field.end = all->at += length;
		fields[type].parse(q, &field);
		*why = "a field's content is damaged, out of range or over a limit";
		if (field.error)
			return field.error;
		if (field.at != field.end)
			return -EBADMSG;
	}
	*why = "bytes follow the last field";
	return hako_reader_left(all) ? -EBADMSG : 0;
}

static bool indexes_good(const struct hako_request *q, uint32_t fd_count)
{
	if (!(q->flags & HAKO_FLAG_TERMINAL)) {
		for (int i = 0; i < 3; i++) {
			if (q->stdio[i] >= fd_count)
				return false;
		}
	}
	for (uint32_t i = 0; i < q->join_count; i++) {
		if (q->joins[i].fd >= fd_count)
			return false;
	}
	for (uint32_t i = 0; i < q->mount_count; i++) {
		if (q->mounts[i].kind == HAKO_MOUNT_SHARED && q->mounts[i].namespace_fd >= fd_count)
			return false;
	}
	if (q->target_fd != HAKO_NO_FD && q->target_fd >= fd_count)
		return false;
	return q->cgroup == HAKO_NO_FD || q->cgroup < fd_count;
}

/* What one field demands of another. */
static const char *find_contradiction(const struct hako_request *q, uint32_t fd_count)
{
	bool joins_container = q->target_fd != HAKO_NO_FD;
	uint32_t types = q->new_namespaces;

	if (!q->arg_count || !q->args[0][0])
		return "there is no program to start";
	if (!q->env || !q->cwd || !q->user.groups)
		return "environment, working directory or user is missing";
	if (!indexes_good(q, fd_count))
		return "a descriptor index is out of range";
	for (uint32_t i = 0; i < q->join_count; i++) {
		if (types & q->joins[i].type)
			return "a namespace is named twice";
		types |= q->joins[i].type;
	}
	if (!!(q->new_namespaces & CLONE_NEWUSER) != (q->uid_map_count && q->gid_map_count))
		return "a new user namespace and ID maps belong together";
	if (joins_container && (types || q->root || q->mount_count || q->device_count || q->masked_count ||
				q->readonly_count || q->sysctl_count || q->hostname || q->domainname ||
				q->time_offset_count || q->hook_count || q->flags & HAKO_FLAG_HOLD))
		return "a process that joins a container cannot set the container up";
	if (!joins_container && (!q->root || !(q->new_namespaces & CLONE_NEWNS)))
		return "a container needs a root file system and a mount namespace of its own";
	if (q->time_offset_count && !(q->new_namespaces & CLONE_NEWTIME))
		return "time offsets need a new time namespace";
	if ((q->hostname || q->domainname) && !(types & CLONE_NEWUTS))
		return "a host name needs a UTS namespace";
	return NULL;
}

int hako_request_parse(struct hako_request *request, const void *data, size_t size, uint32_t fd_count,
		       const char **why)
{
	struct hako_reader all = { .at = data, .end = (const uint8_t *)data + size };
	uint32_t magic, version, total, count;
	int ret;

	memset(request, 0, sizeof(*request));
	request->target_fd = HAKO_NO_FD;
	request->cgroup = HAKO_NO_FD;
	for (int i = 0; i < 3; i++)
		request->stdio[i] = HAKO_NO_FD;

	magic = hako_take_u32(&all);
	version = hako_take_u32(&all);
	total = hako_take_u32(&all);
	count = hako_take_u32(&all);
	*why = "the header is damaged";
	if (all.error || magic != HAKO_REQUEST_MAGIC || total != size || size > HAKO_REQUEST_MAX)
		return -EBADMSG;
	*why = "the version is unknown";
	if (version != HAKO_REQUEST_VERSION)
		return -EBADMSG;
	ret = parse_fields(request, &all, count, why);
	if (ret)
		return ret;
	*why = find_contradiction(request, fd_count);
	return *why ? -EINVAL : 0;
}

void hako_request_release(struct hako_request *request)
{
	free(request->args);
	free(request->env);
	free(request->user.groups);
	free(request->filter);
	for (uint32_t i = 0; i < request->hook_count; i++) {
		free(request->hooks[i].args);
		request->hooks[i].args = NULL;
	}
	request->args = NULL;
	request->env = NULL;
	request->user.groups = NULL;
	request->filter = NULL;
}
