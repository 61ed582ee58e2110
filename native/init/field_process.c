// SPDX-License-Identifier: Apache-2.0
/* Fields of a request that every process has. */
#include "field.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <linux/seccomp.h>

#include "reader.h"
#include "wire.h"

void hako_field_flags(struct hako_request *q, struct hako_reader *r)
{
	q->flags = hako_take_u32(r);
	hako_reader_check(r, !(q->flags & ~(HAKO_FLAG_TERMINAL | HAKO_FLAG_NO_NEW_PRIVS | HAKO_FLAG_READONLY_ROOT |
						    HAKO_FLAG_HOLD)));
}

void hako_field_args(struct hako_request *q, struct hako_reader *r)
{
	q->args = hako_take_strings(r, &q->arg_count);
}

void hako_field_env(struct hako_request *q, struct hako_reader *r)
{
	q->env = hako_take_strings(r, &q->env_count);
}

void hako_field_cwd(struct hako_request *q, struct hako_reader *r)
{
	q->cwd = hako_take_absolute(r);
}

void hako_field_user(struct hako_request *q, struct hako_reader *r)
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

void hako_field_capabilities(struct hako_request *q, struct hako_reader *r)
{
	struct hako_capabilities *caps = &q->capabilities;

	caps->bounding = hako_take_u64(r);
	caps->effective = hako_take_u64(r);
	caps->inheritable = hako_take_u64(r);
	caps->permitted = hako_take_u64(r);
	caps->ambient = hako_take_u64(r);
}

void hako_field_rlimit(struct hako_request *q, struct hako_reader *r)
{
	struct hako_rlimit *limit = hako_take_slot(r, q->rlimits, q->rlimit_count);

	if (!limit)
		return;
	limit->resource = hako_take_u32(r);
	limit->soft = hako_take_u64(r);
	limit->hard = hako_take_u64(r);
	hako_reader_check(r, limit->resource < RLIM_NLIMITS && limit->soft <= limit->hard);
}

void hako_field_oom_score(struct hako_request *q, struct hako_reader *r)
{
	q->oom_score = (int32_t)hako_take_u32(r);
	hako_reader_check(r, q->oom_score >= -1000 && q->oom_score <= 1000);
}

void hako_field_console(struct hako_request *q, struct hako_reader *r)
{
	q->rows = hako_take_u32(r);
	q->columns = hako_take_u32(r);
	hako_reader_check(r, q->rows <= UINT16_MAX && q->columns <= UINT16_MAX);
}

void hako_field_stdio(struct hako_request *q, struct hako_reader *r)
{
	for (int i = 0; i < 3; i++)
		q->stdio[i] = hako_take_u32(r);
}

void hako_field_seccomp(struct hako_request *q, struct hako_reader *r)
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

void hako_field_personality(struct hako_request *q, struct hako_reader *r)
{
	q->personality = hako_take_u32(r);
	q->has_personality = true;
}

void hako_field_io_priority(struct hako_request *q, struct hako_reader *r)
{
	q->io_priority = hako_take_u32(r);
	hako_reader_check(r, q->io_priority <= UINT16_MAX);
}

void hako_field_scheduler(struct hako_request *q, struct hako_reader *r)
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

void hako_field_label(struct hako_request *q, struct hako_reader *r)
{
	q->label_kind = hako_take_u32(r);
	q->label = hako_take_string(r, HAKO_PATH_MAX);
	hako_reader_check(r, q->label_kind == HAKO_LABEL_APPARMOR || q->label_kind == HAKO_LABEL_SELINUX);
	hako_reader_check(r, q->label[0] != 0);
}

void hako_field_hook(struct hako_request *q, struct hako_reader *r)
{
	struct hako_hook *hook = hako_take_slot(r, q->hooks, q->hook_count);
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
