// SPDX-License-Identifier: Apache-2.0
/* Which requests there are: what they take, in which states they are allowed, where they lead, who carries them out. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "../kernel.h"
#include "arch.h"

static int hello(struct hako_machine *machine, struct hako_request *request, struct hako_reply *reply)
{
	struct hako_hello *answer = hako_reply_reserve(reply, sizeof(*answer));

	(void)request;
	answer->state = machine->state;
	answer->vcpus = machine->config.vcpus;
	answer->pid = machine->pid;
	answer->devices = hako_devices_count(machine);
	return 0;
}

static int memory_add(struct hako_machine *machine, struct hako_request *request, struct hako_reply *reply)
{
	const uint32_t known = HAKO_MEMORY_READ_ONLY | HAKO_MEMORY_SHARED | HAKO_MEMORY_HUGE | HAKO_MEMORY_VOLATILE;
	const struct hako_memory_add *add = (const void *)request->payload;
	const struct hako_region region = {
		.gpa = add->gpa, .size = add->size, .slot = add->slot, .flags = add->flags,
	};
	int ret = 0;

	if (add->flags & ~known)
		return hako_reply_fail(reply, -EINVAL, "unknown flags 0x%x", add->flags & ~known);
	hako_memory_add(&machine->memory, &region, request->fd_count ? request->fds[0] : -1, add->offset, &ret);
	return ret ? hako_reply_fail(reply, ret, "memory slot %u at 0x%llx with 0x%llx bytes", add->slot,
				     (unsigned long long)add->gpa, (unsigned long long)add->size)
		   : 0;
}

static int no_memory(struct hako_reply *reply, uint64_t gpa, uint64_t length)
{
	return hako_reply_fail(reply, -EFAULT, "0x%llx bytes at 0x%llx do not lie in one writable memory slot",
			       (unsigned long long)length, (unsigned long long)gpa);
}

static int memory_write(struct hako_machine *machine, struct hako_request *request, struct hako_reply *reply)
{
	const struct hako_memory_write *write = (const void *)request->payload;
	uint32_t length = request->length - (uint32_t)sizeof(*write);
	void *to = hako_memory_at(&machine->memory, write->gpa, length, true);

	if (!to)
		return no_memory(reply, write->gpa, length);
	memcpy(to, write + 1, length);
	return 0;
}

static int memory_load(struct hako_machine *machine, struct hako_request *request, struct hako_reply *reply)
{
	const struct hako_memory_load *load = (const void *)request->payload;
	uint8_t *to = hako_memory_at(&machine->memory, load->gpa, load->length, true);

	if (!to)
		return no_memory(reply, load->gpa, load->length);
	for (uint64_t done = 0; done < load->length;) {
		const struct iovec iov = { .iov_base = to + done, .iov_len = load->length - done };
		ssize_t got = preadv(request->fds[0], &iov, 1, (off_t)(load->offset + done));

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return hako_reply_fail(reply, got ? -errno : -ENODATA, "the file cannot be read at 0x%llx",
					       (unsigned long long)(load->offset + done));
		done += (uint64_t)got;
	}
	return 0;
}

static int memory_save(struct hako_machine *machine, struct hako_request *request, struct hako_reply *reply)
{
	const struct hako_memory_save *save = (const void *)request->payload;
	struct hako_memory_saved saved = { 0 };
	const struct hako_region *broken;

	for (uint32_t i = 0; i < request->length / sizeof(*save); i++) {
		const struct hako_region *region = hako_memory_find_slot(&machine->memory, save[i].slot);
		int ret;

		if (!region || region->flags & HAKO_MEMORY_VOLATILE || save[i].reserved)
			return hako_reply_fail(reply, -EINVAL, "there is no memory slot %u to save", save[i].slot);
		ret = hako_memory_save(region, request->fds[0], save[i].offset,
				       request->fd_count > 1 ? request->fds[1] : -1, &saved.written);
		if (ret)
			return hako_reply_fail(reply, ret, "memory slot %u cannot be written", save[i].slot);
	}
	/* What a file lost in the meantime would have been saved as zeros. */
	broken = hako_memory_find_broken(&machine->memory);
	if (broken)
		return hako_reply_fail(reply, -EFAULT, "the file behind memory slot %u became shorter", broken->slot);
	memcpy(hako_reply_reserve(reply, sizeof(saved)), &saved, sizeof(saved));
	return 0;
}

static struct hako_vcpu *vcpu_find(struct hako_machine *machine, const struct hako_request *request,
				   struct hako_reply *reply, struct hako_sections *sections)
{
	const uint32_t *words = (const void *)request->payload;

	if (words[0] >= machine->config.vcpus || words[1]) {
		hako_reply_fail(reply, -EINVAL, "there is no vCPU %u", words[0]);
		return NULL;
	}
	if (hako_sections_parse(sections, request->payload + 8, request->length - 8)) {
		hako_reply_fail(reply, -EINVAL, "the sections make no sense");
		return NULL;
	}
	return &machine->vcpus[words[0]];
}

static int vcpu_put(struct hako_machine *machine, struct hako_request *request, struct hako_reply *reply)
{
	struct hako_sections sections;
	struct hako_vcpu *vcpu = vcpu_find(machine, request, reply, &sections);

	return vcpu ? hako_arch_vcpu_put(vcpu, &sections, reply) : -EINVAL;
}

static int vcpu_get(struct hako_machine *machine, struct hako_request *request, struct hako_reply *reply)
{
	struct hako_sections wanted;
	struct hako_vcpu *vcpu = vcpu_find(machine, request, reply, &wanted);

	return vcpu ? hako_arch_vcpu_get(vcpu, &wanted, reply) : -EINVAL;
}

static int machine_put(struct hako_machine *machine, struct hako_request *request, struct hako_reply *reply)
{
	struct hako_sections sections;

	if (hako_sections_parse(&sections, request->payload, request->length))
		return hako_reply_fail(reply, -EINVAL, "the sections make no sense");
	return hako_arch_machine_put(machine, &sections, reply);
}

static int machine_get(struct hako_machine *machine, struct hako_request *request, struct hako_reply *reply)
{
	(void)request;
	return hako_arch_machine_get(machine, reply);
}

static int start(struct hako_machine *machine, struct hako_request *request, struct hako_reply *reply)
{
	(void)request;
	return hako_machine_start(machine, reply);
}

static int pause_all(struct hako_machine *machine, struct hako_request *request, struct hako_reply *reply)
{
	int ret = hako_machine_pause(machine);

	(void)request;
	return ret ? hako_reply_fail(reply, ret, "the guest has ended") : 0;
}

static int resume(struct hako_machine *machine, struct hako_request *request, struct hako_reply *reply)
{
	(void)request;
	return hako_machine_resume(machine, reply);
}

static int vcpu_limit(struct hako_machine *machine, struct hako_request *request, struct hako_reply *reply)
{
	return hako_machine_limit(machine, *(const uint32_t *)(const void *)request->payload, reply);
}

static int interrupt(struct hako_machine *machine, struct hako_request *request, struct hako_reply *reply)
{
	uint32_t gsi = *(const uint32_t *)(const void *)request->payload;
	int ret = hako_arch_pulse(machine, gsi);

	return ret ? hako_reply_fail(reply, ret, "interrupt %u", gsi) : 0;
}

static int metrics(struct hako_machine *machine, struct hako_request *request, struct hako_reply *reply)
{
	(void)request;
	return hako_metrics_get(machine, reply);
}

static int stop(struct hako_machine *machine, struct hako_request *request, struct hako_reply *reply)
{
	(void)machine;
	(void)request;
	reply->last = true;
	return 0;
}

#define IN(state)	(1u << HAKO_STATE_##state)
#define MADE		(IN(CREATED) | IN(RUNNING) | IN(PAUSED))
#define STILL		(IN(CREATED) | IN(PAUSED))
#define ANY		(IN(EMPTY) | MADE)
#define PAYLOAD_MAX	(HAKO_MESSAGE_MAX - sizeof(struct hako_header))

/* The life of the machine is this table. In HAKO_STATE_ENDED nothing is heard any more. */
static const struct operation {
	uint32_t least, most;		/* bytes of payload, */
	uint32_t unit;			/* in multiples of this */
	uint8_t fds_least, fds_most;
	uint8_t states;			/* in which it is allowed */
	uint8_t next;			/* the state after it, 0: the same */
	bool completes;			/* needs interrupt controllers and vCPUs */
	int (*run)(struct hako_machine *machine, struct hako_request *request, struct hako_reply *reply);
} operations[] = {
#define FIXED(type)	sizeof(type), sizeof(type), 1
#define FROM(type)	sizeof(type), PAYLOAD_MAX, 1
#define NOTHING		0, 0, 1
#define WORDS		8, 8, 1
	[HAKO_HELLO] = { NOTHING, 0, 0, ANY, 0, false, hello },
	[HAKO_MACHINE_CREATE] = { FIXED(struct hako_machine_create), 1, 2, IN(EMPTY), HAKO_STATE_CREATED, false,
				  hako_machine_create },
	[HAKO_MEMORY_ADD] = { FIXED(struct hako_memory_add), 0, 1, IN(CREATED), 0, false, memory_add },
	[HAKO_MEMORY_WRITE] = { FROM(struct hako_memory_write), 0, 0, STILL, 0, false, memory_write },
	[HAKO_MEMORY_LOAD] = { FIXED(struct hako_memory_load), 1, 1, IN(CREATED), 0, false, memory_load },
	[HAKO_MEMORY_SAVE] = { sizeof(struct hako_memory_save), PAYLOAD_MAX, sizeof(struct hako_memory_save), 1, 2,
			       IN(PAUSED), 0, false, memory_save },
	[HAKO_VCPU_PUT] = { 8, PAYLOAD_MAX, 8, 0, 0, STILL, 0, true, vcpu_put },
	[HAKO_VCPU_GET] = { 8, PAYLOAD_MAX, 8, 0, 0, IN(PAUSED), 0, false, vcpu_get },
	[HAKO_MACHINE_PUT] = { 8, PAYLOAD_MAX, 8, 0, 0, STILL, 0, true, machine_put },
	[HAKO_MACHINE_GET] = { NOTHING, 0, 0, IN(PAUSED), 0, false, machine_get },
	[HAKO_DEVICE_ADD] = { FROM(struct hako_device_add), 0, HAKO_MESSAGE_FDS_MAX, MADE, 0, false, hako_device_add },
	[HAKO_DEVICE_REMOVE] = { FIXED(struct hako_device_slot), 0, 0, MADE, 0, false, hako_device_remove },
	[HAKO_DEVICE_UPDATE] = { FROM(struct hako_device_slot), 0, HAKO_MESSAGE_FDS_MAX, MADE, 0, false, hako_device_update },
	[HAKO_DEVICE_GET] = { FIXED(struct hako_device_slot), 0, 0, IN(PAUSED), 0, false, hako_device_get },
	[HAKO_DEVICE_PUT] = { FROM(struct hako_device_slot), 0, 0, IN(CREATED), 0, false, hako_device_put },
	[HAKO_START] = { NOTHING, 0, 0, IN(CREATED), HAKO_STATE_RUNNING, true, start },
	[HAKO_PAUSE] = { NOTHING, 0, 0, IN(RUNNING), HAKO_STATE_PAUSED, false, pause_all },
	[HAKO_RESUME] = { NOTHING, 0, 0, IN(PAUSED), HAKO_STATE_RUNNING, false, resume },
	[HAKO_VCPU_LIMIT] = { WORDS, 0, 0, MADE, 0, false, vcpu_limit },
	[HAKO_INTERRUPT] = { WORDS, 0, 0, MADE, 0, true, interrupt },
	[HAKO_METRICS] = { NOTHING, 0, 0, ANY, 0, false, metrics },
	[HAKO_STOP] = { NOTHING, 0, 0, ANY, 0, false, stop },
};

int hako_request_handle(struct hako_machine *machine, struct hako_request *request, struct hako_reply *reply)
{
	const struct operation *operation;
	int ret;

	if (request->type >= HAKO_ARRAY_LENGTH(operations) || !operations[request->type].run)
		return hako_reply_fail(reply, -EPROTO, "there is no request %u", request->type);
	operation = &operations[request->type];
	if (request->length < operation->least || request->length > operation->most ||
	    request->length % operation->unit)
		return hako_reply_fail(reply, -EPROTO, "request %u does not take %u bytes", request->type, request->length);
	if (request->fd_count < operation->fds_least || request->fd_count > operation->fds_most)
		return hako_reply_fail(reply, -EPROTO, "request %u does not take %u descriptors", request->type,
				       request->fd_count);
	if (!(operation->states & 1u << machine->state))
		return hako_reply_fail(reply, -EBUSY, "request %u does not fit state %u", request->type, machine->state);
	ret = machine->state == HAKO_STATE_CREATED && operation->completes ? hako_machine_complete(machine, reply) : 0;
	if (!ret)
		ret = operation->run(machine, request, reply);
	/* The guest may have ended while a request waited for its vCPUs. */
	if (!ret && operation->next && machine->state != HAKO_STATE_ENDED)
		machine->state = operation->next;
	return ret;
}
