// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "machine.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <linux/kvm.h>

#include "../kernel.h"
#include "arch.h"
#include "virtio/device.h"

struct hako_machine hako_the_machine;

uint64_t hako_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void ended_handle(struct hako_source *source, uint32_t events)
{
	struct hako_machine *machine = hako_container_of(source, struct hako_machine, ended);

	(void)events;
	hako_timer_read(source->fd);
	hako_machine_finish(machine);
}

int hako_machine_init(struct hako_machine *machine)
{
	int ret = hako_loop_init(&machine->loop);

	if (ret)
		return ret;
	pthread_mutex_init(&machine->lock, NULL);
	pthread_cond_init(&machine->stood, NULL);
	pthread_cond_init(&machine->go, NULL);
	machine->state = HAKO_STATE_EMPTY;
	machine->kvm = machine->vm = machine->console = machine->memory.vm_fd = -1;
	machine->ended.handle = ended_handle;
	machine->ended.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return machine->ended.fd < 0 ? -errno : hako_source_add(&machine->loop, &machine->ended, EPOLLIN);
}

/* ---- making it */

static int config_check(const struct hako_machine_create *config)
{
	const uint32_t known = HAKO_CREATE_BOOT_TIMER | HAKO_CREATE_I8042 | HAKO_CREATE_SERIAL;

	if (!config->vcpus || config->vcpus > HAKO_VCPUS_MAX || !config->running || config->running > config->vcpus ||
	    config->flags & ~known || config->power_port > UINT16_MAX)
		return -EINVAL;
	if ((config->mmio_base | config->mmio_size) % 4096 || config->mmio_base + config->mmio_size < config->mmio_base)
		return -EINVAL;
	return 0;
}

/* Undoes what a failed creation has made, so that it may be tried again. */
static void machine_unmake(struct hako_machine *machine)
{
	for (uint32_t i = 0; i < machine->config.vcpus; i++) {
		struct hako_vcpu *vcpu = &machine->vcpus[i];

		if (vcpu->machine)
			hako_close(&vcpu->fd);
		memset(vcpu, 0, sizeof(*vcpu));
	}
	hako_close(&machine->vm);
	hako_close(&machine->kvm);
	hako_close(&machine->console);
	memset(&machine->config, 0, sizeof(machine->config));
}

static int kvm_check(int kvm)
{
	int version = ioctl(kvm, KVM_GET_API_VERSION, 0);

	if (version < 0)
		return -errno;
	return version == KVM_API_VERSION && ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_IMMEDIATE_EXIT) > 0 ? 0 : -ENOSYS;
}

static int vm_make(struct hako_machine *machine, struct hako_reply *reply)
{
	int ret = kvm_check(machine->kvm);

	if (ret)
		return hako_reply_fail(reply, ret, "the first descriptor is no KVM that can be used");
	do
		machine->vm = ioctl(machine->kvm, KVM_CREATE_VM, 0);
	while (machine->vm < 0 && errno == EINTR);
	return machine->vm < 0 ? hako_reply_fail(reply, -errno, "KVM_CREATE_VM") : 0;
}

/*
 * Interrupt controllers and vCPUs, as late as can be. KVM puts the controllers on its buses, which begins a grace period
 * of SRCU; every memory slot that is set before its end waits for it, 5 ms and more. So the slots come first.
 */
int hako_machine_complete(struct hako_machine *machine, struct hako_reply *reply)
{
	int run_size, ret;

	if (machine->complete)
		return 0;
	ret = hako_arch_create(machine);
	if (ret)
		return hako_reply_fail(reply, ret, "interrupt controllers");
	run_size = ioctl(machine->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	for (uint32_t i = 0; i < machine->config.vcpus; i++) {
		ret = hako_vcpu_create(machine, i, (size_t)run_size);
		if (ret)
			return hako_reply_fail(reply, ret, "vCPU %u", i);
	}
	machine->complete = true;
	for (uint32_t i = 0; i < HAKO_DEVICES_MAX; i++) {
		ret = machine->devices[i] ? hako_virtio_connect(machine->devices[i]) : 0;
		if (ret)
			return hako_reply_fail(reply, ret, "device \"%s\"", machine->devices[i]->id);
	}
	return 0;
}

/* A console that nobody reads must not hold the guest up. */
static int console_take(struct hako_machine *machine, struct hako_request *request)
{
	int flags;

	if (request->fd_count < 2)
		return 0;
	machine->console = request->fds[1];
	request->fds[1] = -1;
	flags = fcntl(machine->console, F_GETFL);
	return flags < 0 || fcntl(machine->console, F_SETFL, flags | O_NONBLOCK) < 0 ? -errno : 0;
}

int hako_machine_create(struct hako_machine *machine, struct hako_request *request, struct hako_reply *reply)
{
	const struct hako_machine_create *config = (const void *)request->payload;
	int ret = config_check(config);

	if (ret)
		return hako_reply_fail(reply, ret, "a number in the machine's description is out of range");
	machine->config = *config;
	machine->vcpu_limit = config->running;
	machine->kvm = request->fds[0];
	request->fds[0] = -1;
	ret = console_take(machine, request);
	if (!ret)
		ret = vm_make(machine, reply);
	if (ret) {
		machine_unmake(machine);
		return ret;
	}
	machine->memory.vm_fd = machine->vm;
	machine->memory.window_gpa = config->mmio_base;
	machine->memory.window_size = config->mmio_size;
	return 0;
}

/* ---- running and standing */

bool hako_machine_may_run(const struct hako_machine *machine, const struct hako_vcpu *vcpu)
{
	return machine->state == HAKO_STATE_RUNNING && !machine->halted && vcpu->index < machine->vcpu_limit;
}

/* Makes those that may not run stand, and waits for it. */
static void stand_wait(struct hako_machine *machine)
{
	for (uint32_t i = 0; i < machine->config.vcpus; i++) {
		struct hako_vcpu *vcpu = &machine->vcpus[i];

		if (vcpu->started && !vcpu->standing && !hako_machine_may_run(machine, vcpu))
			hako_vcpu_kick(vcpu);
	}
	for (uint32_t i = 0; i < machine->config.vcpus; i++) {
		struct hako_vcpu *vcpu = &machine->vcpus[i];

		while (vcpu->started && !vcpu->standing && !hako_machine_may_run(machine, vcpu))
			pthread_cond_wait(&machine->stood, &machine->lock);
	}
}

void hako_machine_halt(struct hako_machine *machine)
{
	machine->halted = true;
	stand_wait(machine);
}

void hako_machine_go(struct hako_machine *machine)
{
	machine->halted = false;
	pthread_cond_broadcast(&machine->go);
}

/* The threads wait for the lock, so none enters the guest before the request is done and the state changed. */
static int threads_make(struct hako_machine *machine, struct hako_reply *reply)
{
	for (uint32_t i = 0; i < machine->vcpu_limit; i++) {
		struct hako_vcpu *vcpu = &machine->vcpus[i];
		int ret = vcpu->started ? 0 : hako_vcpu_start(vcpu);

		if (ret)
			return hako_reply_fail(reply, ret, "thread of vCPU %u", i);
	}
	return 0;
}

int hako_machine_start(struct hako_machine *machine, struct hako_reply *reply)
{
	int ret = threads_make(machine, reply);

	if (ret)
		return ret;
	hako_devices_resume(machine);
	hako_machine_go(machine);
	return 0;
}

int hako_machine_pause(struct hako_machine *machine)
{
	hako_machine_halt(machine);
	if (machine->state == HAKO_STATE_ENDED)
		return -ESHUTDOWN;
	hako_devices_quiesce(machine);
	return 0;
}

int hako_machine_resume(struct hako_machine *machine, struct hako_reply *reply)
{
	for (uint32_t i = 0; i < machine->config.vcpus; i++)
		hako_arch_resume(&machine->vcpus[i]);
	return hako_machine_start(machine, reply);
}

int hako_machine_limit(struct hako_machine *machine, uint32_t count, struct hako_reply *reply)
{
	uint32_t before = machine->vcpu_limit;
	int ret = 0;

	if (!count || count > machine->config.vcpus)
		return hako_reply_fail(reply, -EINVAL, "the machine has 1 to %u vCPUs", machine->config.vcpus);
	machine->vcpu_limit = count;
	if (machine->state == HAKO_STATE_RUNNING)
		ret = threads_make(machine, reply);
	if (ret)
		machine->vcpu_limit = before;
	stand_wait(machine);
	pthread_cond_broadcast(&machine->go);
	return ret;
}

/* ---- the end */

static void end_describe(struct hako_end *end, uint32_t reason, uint32_t vcpu, uint64_t detail, const char *format,
			 va_list arguments)
{
	end->event = (struct hako_exit_event){ .reason = reason, .vcpu = vcpu, .detail = detail };
	vsnprintf(end->text, sizeof(end->text), format, arguments);
}

static __attribute__((format(printf, 5, 6))) void end_set(struct hako_end *end, uint32_t reason, uint32_t vcpu,
							  uint64_t detail, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	end_describe(end, reason, vcpu, detail, format, arguments);
	va_end(arguments);
}

void hako_end_set_memory(struct hako_end *end, const struct hako_memory *memory, uint32_t vcpu, const void *host)
{
	const struct hako_region *region =
		host ? hako_memory_find_host(memory, host) : hako_memory_find_broken(memory);

	if (!region)
		end_set(end, HAKO_EXIT_MEMORY_FAULT, vcpu, EFAULT,
			"guest memory cannot be reached; which slot is not known");
	else
		end_set(end, HAKO_EXIT_MEMORY_FAULT, vcpu, EFAULT,
			"memory slot %u (0x%llx to 0x%llx) is not all there any more: its file became shorter, "
			"or the host has no memory left",
			region->slot, (unsigned long long)region->gpa,
			(unsigned long long)(region->gpa + region->size));
}

int hako_end_send(struct hako_machine *machine, const struct hako_end *end, bool wait)
{
	uint32_t length = (uint32_t)(sizeof(end->event) + strnlen(end->text, sizeof(end->text)));

	return hako_control_event(machine, HAKO_EVENT_EXIT, end, length, NULL, 0, wait);
}

/* No vCPU may run from here on; the event thread does the rest. */
static void machine_ended(struct hako_machine *machine)
{
	uint64_t one = 1;

	machine->state = HAKO_STATE_ENDED;
	for (uint32_t i = 0; i < machine->config.vcpus; i++) {
		if (machine->vcpus[i].started && !machine->vcpus[i].standing)
			hako_vcpu_kick(&machine->vcpus[i]);
	}
	if (write(machine->ended.fd, &one, sizeof(one)) < 0)
		_exit(1);	/* an eventfd of our own cannot fail */
}

void hako_machine_end(struct hako_machine *machine, uint32_t reason, uint32_t vcpu, uint64_t detail,
		      const char *format, ...)
{
	va_list arguments;

	if (machine->state == HAKO_STATE_ENDED)
		return;
	va_start(arguments, format);
	end_describe(&machine->end, reason, vcpu, detail, format, arguments);
	va_end(arguments);
	machine_ended(machine);
}

void hako_machine_end_memory(struct hako_machine *machine, uint32_t vcpu, const void *host)
{
	if (machine->state == HAKO_STATE_ENDED)
		return;
	hako_end_set_memory(&machine->end, &machine->memory, vcpu, host);
	machine_ended(machine);
}

/* Gives back what a dead guest holds, while nobody has come to hear of its end. */
static void machine_release(struct hako_machine *machine)
{
	stand_wait(machine);
	hako_devices_quiesce(machine);
	for (uint32_t i = 0; i < HAKO_DEVICES_MAX; i++) {
		if (machine->devices[i])
			hako_virtio_close(machine->devices[i]);
		machine->devices[i] = NULL;
	}
	while (machine->memory.count) {
		if (hako_memory_remove(&machine->memory, machine->memory.regions[0].slot))
			return;
	}
}

void hako_machine_finish(struct hako_machine *machine)
{
	/* Closing the VM takes the kernel some 16 ms, so the manager hears of it first. */
	if (!hako_end_send(machine, &machine->end, false))
		_exit(0);
	hako_control_drop(machine);
	machine_release(machine);
}

/* ---- for the devices */

int hako_machine_vm_fd(struct hako_machine *machine)
{
	if (!machine->complete)
		return -1;
	return machine->vm;
}

struct hako_memory *hako_machine_memory(struct hako_machine *machine)
{
	return &machine->memory;
}

struct hako_loop *hako_machine_loop(struct hako_machine *machine)
{
	return &machine->loop;
}

int hako_machine_event(struct hako_machine *machine, uint16_t type, const void *payload, uint32_t length,
		       const int *fds, uint32_t fd_count)
{
	int ret = hako_control_event(machine, type, payload, length, fds, fd_count, false);

	for (uint32_t i = 0; i < fd_count; i++)
		close(fds[i]);
	return ret;
}
