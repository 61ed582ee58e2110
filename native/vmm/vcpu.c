// SPDX-License-Identifier: Apache-2.0
/*
 * A vCPU's thread: runs the guest, serves its exits, and stands still when it may not run.
 *
 * It stands only after KVM_RUN returned EINTR. KVM finishes the exit before it looks at immediate_exit, so then no
 * port or register access is half done, and the registers may be read and saved.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <linux/kvm.h>

#include "../kernel.h"
#include "arch.h"
#include "jail.h"
#include "virtio/device.h"

#define KICK_SIGNAL	(SIGRTMIN + 2)
/* Enough for a device's activation; the frames of all functions are small. */
#define STACK_SIZE	(48 * 1024)
/* A vCPU that waits for its start-up interrupt gets EAGAIN for each one; without MP state it would get it for ever. */
#define AGAIN_MAX	1000

static _Thread_local struct hako_vcpu *own;

/* A signal that comes between the last look at the state and KVM_RUN must not be lost. */
static void kick_handle(int signal)
{
	(void)signal;
	if (own)
		own->run->immediate_exit = 1;
}

/*
 * A fault in this program. One of guest memory (SIGBUS: the file behind it became shorter, no huge page is left, the
 * hardware failed) is the guest's end. Everything else is a defect here: the process ends with a named reason. This
 * thread may hold the lock, so nothing is locked, and what other threads do meanwhile does not matter.
 */
static void fault_handle(int signal, siginfo_t *info, void *context)
{
	struct hako_machine *machine = &hako_the_machine;
	struct hako_end end = {
		.event = { .reason = HAKO_EXIT_WORKER_FAULT, .vcpu = own ? own->index : 0, .detail = (uint64_t)signal },
	};

	(void)context;
	if (signal == SIGBUS && hako_memory_find_host(&machine->memory, info->si_addr))
		hako_end_set_memory(&end, &machine->memory, end.event.vcpu, info->si_addr);
	else
		snprintf(end.text, sizeof(end.text), "signal %d at address %p", signal, info->si_addr);
	hako_end_send(machine, &end, true);
	_exit(1);
}

int hako_signals_init(void)
{
#ifdef __SANITIZE_ADDRESS__
	static const int faults[] = { SIGBUS };
#else
	static const int faults[] = { SIGBUS, SIGSEGV, SIGILL, SIGFPE, SIGABRT };
#endif
	struct sigaction kick = { .sa_handler = kick_handle, .sa_flags = SA_RESTART };	/* KVM_RUN returns all the same */
	struct sigaction fault = { .sa_sigaction = fault_handle, .sa_flags = SA_SIGINFO | SA_RESETHAND | SA_NODEFER };

	if (sigaction(KICK_SIGNAL, &kick, NULL) < 0)
		return -errno;
	for (size_t i = 0; i < HAKO_ARRAY_LENGTH(faults); i++) {
		if (sigaction(faults[i], &fault, NULL) < 0)
			return -errno;
	}
	return signal(SIGPIPE, SIG_IGN) == SIG_ERR ? -errno : 0;
}

int hako_vcpu_create(struct hako_machine *machine, uint32_t index, size_t run_size)
{
	struct hako_vcpu *vcpu = &machine->vcpus[index];

	vcpu->fd = ioctl(machine->vm, KVM_CREATE_VCPU, (unsigned long)index);
	if (vcpu->fd < 0)
		return -errno;
	vcpu->machine = machine;
	vcpu->index = index;
	vcpu->run = mmap(NULL, run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
	return vcpu->run == MAP_FAILED ? -errno : 0;
}

/* Waits, with the lock held, until this vCPU may run. */
static void vcpu_stand(struct hako_vcpu *vcpu)
{
	struct hako_machine *machine = vcpu->machine;

	while (!hako_machine_may_run(machine, vcpu)) {
		vcpu->standing = true;
		pthread_cond_broadcast(&machine->stood);
		pthread_cond_wait(&machine->go, &machine->lock);
	}
	vcpu->standing = false;
	/* Whoever wants it to stand again needs the lock, so no kick is lost by this. */
	vcpu->run->immediate_exit = 0;
	if (!machine->start_ns)
		machine->start_ns = hako_now_ns();
}

static void run_failed(struct hako_vcpu *vcpu, int error)
{
	struct hako_machine *machine = vcpu->machine;

	pthread_mutex_lock(&machine->lock);
	if (error == EFAULT)
		hako_machine_end_memory(machine, vcpu->index, NULL);
	else
		hako_machine_end(machine, HAKO_EXIT_KVM_ERROR, vcpu->index, (uint64_t)error,
				 error == EAGAIN ? "KVM_RUN does not start: the vCPU has no state to run from"
						 : "KVM_RUN failed with errno %d",
				 error);
	pthread_mutex_unlock(&machine->lock);
}

/* Exits that end the guest. */
static void exit_final(struct hako_vcpu *vcpu)
{
	struct hako_machine *machine = vcpu->machine;
	const struct kvm_run *run = vcpu->run;
	unsigned long long pc = hako_arch_pc(vcpu);

	pthread_mutex_lock(&machine->lock);
	switch (run->exit_reason) {
	case KVM_EXIT_SHUTDOWN:
		hako_machine_end(machine, HAKO_EXIT_TRIPLE_FAULT, vcpu->index, run->exit_reason,
				 "triple fault at 0x%llx", pc);
		break;
	case KVM_EXIT_INTERNAL_ERROR:
		hako_machine_end(machine, HAKO_EXIT_KVM_ERROR, vcpu->index, run->internal.suberror,
				 "KVM internal error, suberror %u, at 0x%llx", run->internal.suberror, pc);
		break;
	case KVM_EXIT_FAIL_ENTRY:
		hako_machine_end(machine, HAKO_EXIT_KVM_ERROR, vcpu->index,
				 run->fail_entry.hardware_entry_failure_reason,
				 "the processor refused to enter the guest, reason 0x%llx",
				 (unsigned long long)run->fail_entry.hardware_entry_failure_reason);
		break;
	case KVM_EXIT_SYSTEM_EVENT:
		hako_machine_end(machine,
				 run->system_event.type == KVM_SYSTEM_EVENT_SHUTDOWN ? HAKO_EXIT_POWER_OFF
				 : run->system_event.type == KVM_SYSTEM_EVENT_RESET  ? HAKO_EXIT_RESET
										     : HAKO_EXIT_KVM_ERROR,
				 vcpu->index, run->system_event.type, "system event %u", run->system_event.type);
		break;
	default:
		hako_machine_end(machine, HAKO_EXIT_KVM_ERROR, vcpu->index, run->exit_reason,
				 "unexpected exit %u at 0x%llx", run->exit_reason, pc);
	}
	pthread_mutex_unlock(&machine->lock);
}

static void exit_handle(struct hako_vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;

	switch (run->exit_reason) {
	case KVM_EXIT_MMIO:
		hako_vcpu_count(vcpu, HAKO_COUNT_MMIO);
		hako_bus_access(vcpu, run->mmio.phys_addr, run->mmio.data, run->mmio.len, run->mmio.is_write);
		break;
	case KVM_EXIT_INTR:
	case KVM_EXIT_IRQ_WINDOW_OPEN:
		hako_vcpu_count(vcpu, HAKO_COUNT_OTHER);
		break;
	default:
		if (hako_arch_exit(vcpu) == -ENOSYS)
			exit_final(vcpu);
	}
}

/* Runs until a signal, or until the guest has ended, after which the next kick comes. */
static void vcpu_run(struct hako_vcpu *vcpu)
{
	uint32_t again = 0;

	for (;;) {
		if (ioctl(vcpu->fd, KVM_RUN, 0) >= 0) {
			again = 0;
			exit_handle(vcpu);
			if (vcpu->machine->state == HAKO_STATE_ENDED)
				return;
			continue;
		}
		if (errno == EINTR) {
			hako_vcpu_count(vcpu, HAKO_COUNT_SIGNAL);
			return;
		}
		hako_vcpu_count(vcpu, HAKO_COUNT_AGAIN);
		if (errno == EAGAIN && ++again < AGAIN_MAX)
			continue;
		run_failed(vcpu, errno);
		return;
	}
}

static void *vcpu_main(void *argument)
{
	struct hako_vcpu *vcpu = argument;
	struct hako_machine *machine = vcpu->machine;
	char name[16];
	int ret;

	own = vcpu;
	snprintf(name, sizeof(name), "vcpu%u", vcpu->index);
	prctl(PR_SET_NAME, name, 0, 0, 0);
	ret = hako_seccomp_load(HAKO_FILTER_VCPU);
	pthread_mutex_lock(&machine->lock);
	if (ret)
		hako_machine_end(machine, HAKO_EXIT_WORKER_FAULT, vcpu->index, (uint64_t)-ret,
				 "seccomp filter of vCPU %u", vcpu->index);
	for (;;) {
		vcpu_stand(vcpu);
		pthread_mutex_unlock(&machine->lock);
		vcpu_run(vcpu);
		pthread_mutex_lock(&machine->lock);
	}
	return NULL;
}

int hako_vcpu_start(struct hako_vcpu *vcpu)
{
	pthread_attr_t attributes;
	int error = pthread_attr_init(&attributes);

	if (error)
		return -error;
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	error = pthread_attr_setstacksize(&attributes, STACK_SIZE);
	if (!error)
		error = pthread_create(&vcpu->thread, &attributes, vcpu_main, vcpu);
	pthread_attr_destroy(&attributes);
	vcpu->started = !error;
	return -error;
}

void hako_vcpu_kick(struct hako_vcpu *vcpu)
{
	pthread_kill(vcpu->thread, KICK_SIGNAL);
}
