/* SPDX-License-Identifier: Apache-2.0 */
/* One parser for each kind of field (wire.h); request.c has their table. A bad value sets r->error. */
#ifndef HAKO_INIT_FIELD_H
#define HAKO_INIT_FIELD_H

#include "reader.h"
#include "request.h"

/* The next free entry of a limited array, or NULL with r->error set. */
#define hako_take_slot(r, array, count) \
	((count) < sizeof(array) / sizeof((array)[0]) ? &(array)[(count)++] : ((r)->error = -E2BIG, NULL))

void hako_field_flags(struct hako_request *q, struct hako_reader *r);
void hako_field_args(struct hako_request *q, struct hako_reader *r);
void hako_field_env(struct hako_request *q, struct hako_reader *r);
void hako_field_cwd(struct hako_request *q, struct hako_reader *r);
void hako_field_user(struct hako_request *q, struct hako_reader *r);
void hako_field_capabilities(struct hako_request *q, struct hako_reader *r);
void hako_field_rlimit(struct hako_request *q, struct hako_reader *r);
void hako_field_oom_score(struct hako_request *q, struct hako_reader *r);
void hako_field_console(struct hako_request *q, struct hako_reader *r);
void hako_field_stdio(struct hako_request *q, struct hako_reader *r);
void hako_field_new(struct hako_request *q, struct hako_reader *r);
void hako_field_join(struct hako_request *q, struct hako_reader *r);
void hako_field_target(struct hako_request *q, struct hako_reader *r);
void hako_field_uid_map(struct hako_request *q, struct hako_reader *r);
void hako_field_gid_map(struct hako_request *q, struct hako_reader *r);
void hako_field_cgroup(struct hako_request *q, struct hako_reader *r);
void hako_field_root(struct hako_request *q, struct hako_reader *r);
void hako_field_mount(struct hako_request *q, struct hako_reader *r);
void hako_field_device(struct hako_request *q, struct hako_reader *r);
void hako_field_masked(struct hako_request *q, struct hako_reader *r);
void hako_field_readonly(struct hako_request *q, struct hako_reader *r);
void hako_field_sysctl(struct hako_request *q, struct hako_reader *r);
void hako_field_hostname(struct hako_request *q, struct hako_reader *r);
void hako_field_domainname(struct hako_request *q, struct hako_reader *r);
void hako_field_seccomp(struct hako_request *q, struct hako_reader *r);
void hako_field_time_offset(struct hako_request *q, struct hako_reader *r);
void hako_field_personality(struct hako_request *q, struct hako_reader *r);
void hako_field_io_priority(struct hako_request *q, struct hako_reader *r);
void hako_field_scheduler(struct hako_request *q, struct hako_reader *r);
void hako_field_label(struct hako_request *q, struct hako_reader *r);
void hako_field_hook(struct hako_request *q, struct hako_reader *r);
void hako_field_mount_map(struct hako_request *q, struct hako_reader *r);
void hako_field_shared(struct hako_request *q, struct hako_reader *r);

#endif
