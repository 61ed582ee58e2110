// SPDX-License-Identifier: Apache-2.0
/* The request parser: bytes from the agent become a checked struct hako_request. */
#include "request.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <linux/sched.h>

#include "field.h"
#include "reader.h"
#include "wire.h"

static const struct {
	void (*parse)(struct hako_request *q, struct hako_reader *r);
	bool repeated;
} fields[HAKO_FIELD_COUNT] = {
	[HAKO_FIELD_FLAGS] = { hako_field_flags, false },
	[HAKO_FIELD_ARGS] = { hako_field_args, false },
	[HAKO_FIELD_ENV] = { hako_field_env, false },
	[HAKO_FIELD_CWD] = { hako_field_cwd, false },
	[HAKO_FIELD_USER] = { hako_field_user, false },
	[HAKO_FIELD_CAPABILITIES] = { hako_field_capabilities, false },
	[HAKO_FIELD_RLIMIT] = { hako_field_rlimit, true },
	[HAKO_FIELD_OOM_SCORE] = { hako_field_oom_score, false },
	[HAKO_FIELD_CONSOLE] = { hako_field_console, false },
	[HAKO_FIELD_STDIO] = { hako_field_stdio, false },
	[HAKO_FIELD_NEW] = { hako_field_new, false },
	[HAKO_FIELD_JOIN] = { hako_field_join, true },
	[HAKO_FIELD_TARGET] = { hako_field_target, false },
	[HAKO_FIELD_UID_MAP] = { hako_field_uid_map, true },
	[HAKO_FIELD_GID_MAP] = { hako_field_gid_map, true },
	[HAKO_FIELD_CGROUP] = { hako_field_cgroup, false },
	[HAKO_FIELD_ROOT] = { hako_field_root, false },
	[HAKO_FIELD_MOUNT] = { hako_field_mount, true },
	[HAKO_FIELD_DEVICE] = { hako_field_device, true },
	[HAKO_FIELD_MASKED] = { hako_field_masked, true },
	[HAKO_FIELD_READONLY] = { hako_field_readonly, true },
	[HAKO_FIELD_SYSCTL] = { hako_field_sysctl, true },
	[HAKO_FIELD_HOSTNAME] = { hako_field_hostname, false },
	[HAKO_FIELD_DOMAINNAME] = { hako_field_domainname, false },
	[HAKO_FIELD_SECCOMP] = { hako_field_seccomp, false },
	[HAKO_FIELD_TIME_OFFSET] = { hako_field_time_offset, true },
	[HAKO_FIELD_PERSONALITY] = { hako_field_personality, false },
	[HAKO_FIELD_IO_PRIORITY] = { hako_field_io_priority, false },
	[HAKO_FIELD_SCHEDULER] = { hako_field_scheduler, false },
	[HAKO_FIELD_LABEL] = { hako_field_label, false },
	[HAKO_FIELD_HOOK] = { hako_field_hook, true },
	[HAKO_FIELD_MOUNT_MAP] = { hako_field_mount_map, true },
	[HAKO_FIELD_SHARED] = { hako_field_shared, true },
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
