// SPDX-License-Identifier: Apache-2.0
/*
 * The system calls of each kind of thread; everything else kills the process. Where a call can do more than is
 * needed here, one of its arguments is restricted too. A vCPU's thread has both filters, so what it may do must be
 * in both columns. tests/integration/vmm-seccomp.test.ts counts and tries them.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/if_tun.h>
#include <linux/kvm.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../kernel.h"
#include "jail.h"

#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
#endif

#define EVENT	(1u << HAKO_FILTER_EVENT)
#define VCPU	(1u << HAKO_FILTER_VCPU)
#define BOTH	(EVENT | VCPU)

enum check {
	ANYTHING,
	ONE_OF,			/* the argument's lower 32 bits are one of the values */
	NONE_OF_BITS,		/* the argument has none of the value's bits */
};

struct rule {
	int call;
	uint8_t filters;
	uint8_t check, argument;
	const uint32_t *values;
	uint32_t count;
};

static const uint32_t vcpu_ioctls[] = {
	KVM_RUN, KVM_IRQ_LINE, KVM_IRQFD, KVM_IOEVENTFD, KVM_GET_REGS, TUNSETOFFLOAD, TUNSETQUEUE,
};

static const uint32_t event_ioctls[] = {
	KVM_RUN, KVM_IRQ_LINE, KVM_IRQFD, KVM_IOEVENTFD, KVM_GET_REGS,
	KVM_GET_API_VERSION, KVM_CHECK_EXTENSION, KVM_CREATE_VM, KVM_GET_VCPU_MMAP_SIZE, KVM_CREATE_VCPU,
	KVM_SET_USER_MEMORY_REGION, KVM_KVMCLOCK_CTRL, KVM_GET_CLOCK, KVM_SET_CLOCK,
	KVM_SET_REGS, KVM_GET_MP_STATE, KVM_SET_MP_STATE, KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS,
#if defined(__x86_64__)
	KVM_SET_TSS_ADDR, KVM_CREATE_IRQCHIP, KVM_GET_IRQCHIP, KVM_SET_IRQCHIP, KVM_GET_MSR_INDEX_LIST,
	KVM_GET_CPUID2, KVM_SET_CPUID2, KVM_GET_TSC_KHZ, KVM_SET_TSC_KHZ, KVM_GET_SREGS, KVM_SET_SREGS,
	KVM_GET_XSAVE, KVM_GET_XSAVE2, KVM_SET_XSAVE, KVM_GET_XCRS, KVM_SET_XCRS, KVM_GET_DEBUGREGS,
	KVM_SET_DEBUGREGS, KVM_GET_LAPIC, KVM_SET_LAPIC, KVM_GET_MSRS, KVM_SET_MSRS, KVM_SET_FPU,
#endif
	TUNGETIFF, TUNSETQUEUE, TUNSETVNETHDRSZ, TUNSETOFFLOAD,
};

static const uint32_t no_code[] = { PROT_EXEC };
static const uint32_t a_thread[] = {
	CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_SETTLS |
	CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID | 0x400000 /* CLONE_DETACHED, which musl still sets */,
};
static const uint32_t unix_sockets[] = { 1 /* AF_UNIX */ };
static const uint32_t descriptor_flags[] = { F_GETFL, F_SETFL, F_SETFD, F_DUPFD_CLOEXEC };
static const uint32_t advice[] = {
	MADV_DONTNEED, MADV_REMOVE, MADV_FREE, MADV_HUGEPAGE, 22 /* MADV_POPULATE_READ */,
};
static const uint32_t thread_name[] = { PR_SET_NAME };

#define SOME(kind, n, list) kind, n, list, HAKO_ARRAY_LENGTH(list)
#define ALL ANYTHING, 0, NULL, 0

static const struct rule rules[] = {
	{ SYS_ioctl, VCPU, SOME(ONE_OF, 1, vcpu_ioctls) },
	{ SYS_ioctl, EVENT, SOME(ONE_OF, 1, event_ioctls) },
	{ SYS_futex, BOTH, ALL },
	{ SYS_write, BOTH, ALL },
	{ SYS_read, BOTH, ALL },
	{ SYS_epoll_pwait, EVENT, ALL },
	{ SYS_readv, EVENT, ALL },
	{ SYS_writev, EVENT, ALL },
	{ SYS_preadv, EVENT, ALL },
	{ SYS_pwritev2, EVENT, ALL },
	{ SYS_sendmsg, BOTH, ALL },
	{ SYS_recvmsg, EVENT, ALL },
	{ SYS_io_uring_enter, BOTH, ALL },
	{ SYS_io_uring_register, EVENT, ALL },
	{ SYS_clock_gettime, BOTH, ALL },
	{ SYS_timerfd_settime, BOTH, ALL },
	{ SYS_epoll_ctl, BOTH, ALL },
	{ SYS_fdatasync, EVENT, ALL },
	{ SYS_fallocate, EVENT, ALL },
	{ SYS_getrandom, EVENT, ALL },
	{ SYS_accept4, EVENT, ALL },
	{ SYS_socketpair, EVENT, SOME(ONE_OF, 0, unix_sockets) },
	{ SYS_shutdown, BOTH, ALL },
	{ SYS_close, BOTH, ALL },
	{ SYS_eventfd2, EVENT, ALL },
	{ SYS_timerfd_create, EVENT, ALL },
	{ SYS_fcntl, EVENT, SOME(ONE_OF, 1, descriptor_flags) },
	{ SYS_lseek, EVENT, ALL },
	{ SYS_madvise, BOTH, SOME(ONE_OF, 2, advice) },
	{ SYS_mmap, BOTH, SOME(NONE_OF_BITS, 2, no_code) },
	{ SYS_mprotect, EVENT, SOME(NONE_OF_BITS, 2, no_code) },
	{ SYS_munmap, BOTH, ALL },
	{ SYS_brk, BOTH, ALL },
	{ SYS_clone, EVENT, SOME(ONE_OF, 0, a_thread) },
	{ SYS_prctl, EVENT, SOME(ONE_OF, 0, thread_name) },
	{ SYS_seccomp, EVENT, ALL },
	{ SYS_tkill, BOTH, ALL },
	{ SYS_rt_sigprocmask, BOTH, ALL },
	{ SYS_rt_sigreturn, BOTH, ALL },
	{ SYS_exit_group, BOTH, ALL },
};

#define PROGRAM_MAX 320

struct program {
	struct sock_filter code[PROGRAM_MAX];
	uint16_t length;
};

/* The rules of one filter, by number of the call. */
struct sorted {
	const struct rule *rules[HAKO_ARRAY_LENGTH(rules)];
	uint32_t count;
};

static void emit(struct program *program, uint16_t code, uint32_t k, uint32_t if_true, uint32_t if_false)
{
	if (program->length < PROGRAM_MAX)
		program->code[program->length] = (struct sock_filter)BPF_JUMP(code, k, (uint8_t)if_true, (uint8_t)if_false);
	program->length++;
}

static void emit_return(struct program *program, uint32_t action)
{
	emit(program, BPF_RET | BPF_K, action, 0, 0);
}

/* Looks at one call. Jumps are relative to the next instruction. */
static void emit_rule(struct program *program, const struct rule *rule)
{
	uint32_t values = rule->check == ANYTHING ? 0 : rule->count;

	emit(program, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)rule->call, 0, values + 1);
	if (rule->check != ANYTHING)
		emit(program, BPF_LD | BPF_W | BPF_ABS, (uint32_t)offsetof(struct seccomp_data, args[rule->argument]), 0, 0);
	for (uint32_t i = 0; i < values; i++) {
		bool last = i == values - 1;

		if (rule->check == ONE_OF)
			emit(program, BPF_JMP | BPF_JEQ | BPF_K, rule->values[i], values - i, 0);
		else
			emit(program, BPF_JMP | BPF_JSET | BPF_K, rule->values[i], values - 1 - i, last ? 1 : 0);
	}
	if (rule->check != ANYTHING)
		emit_return(program, SECCOMP_RET_KILL_PROCESS);
	emit_return(program, SECCOMP_RET_ALLOW);
	if (rule->check == ANYTHING)
		emit_return(program, SECCOMP_RET_KILL_PROCESS);
}

/*
 * A search by halves: when a filter is loaded, the kernel runs it for every call there is, to know which need no
 * filter at all. One after the other that took 0.1 ms.
 */
static void emit_search(struct program *program, const struct sorted *sorted, uint32_t low, uint32_t high)
{
	uint32_t middle = (low + high) / 2;
	uint16_t at = program->length;

	if (high - low == 1) {
		emit_rule(program, sorted->rules[low]);
		return;
	}
	emit(program, BPF_JMP | BPF_JGE | BPF_K, (uint32_t)sorted->rules[middle]->call, 0, 0);
	emit_search(program, sorted, low, middle);
	if (program->length - at - 1 > UINT8_MAX)
		program->length = PROGRAM_MAX + 1;	/* too far for a jump */
	if (program->length <= PROGRAM_MAX)
		program->code[at].jt = (uint8_t)(program->length - at - 1);
	emit_search(program, sorted, middle, high);
}

static void rules_sort(struct sorted *sorted, enum hako_filter filter)
{
	sorted->count = 0;
	for (size_t i = 0; i < HAKO_ARRAY_LENGTH(rules); i++) {
		uint32_t at = sorted->count;

		if (!(rules[i].filters & 1u << filter))
			continue;
		for (; at && sorted->rules[at - 1]->call > rules[i].call; at--)
			sorted->rules[at] = sorted->rules[at - 1];
		sorted->rules[at] = &rules[i];
		sorted->count++;
	}
}

static void program_make(struct program *program, enum hako_filter filter)
{
	struct sorted sorted;

	rules_sort(&sorted, filter);
	program->length = 0;
	emit(program, BPF_LD | BPF_W | BPF_ABS, (uint32_t)offsetof(struct seccomp_data, arch), 0, 0);
	emit(program, BPF_JMP | BPF_JEQ | BPF_K, ARCH, 1, 0);
	emit_return(program, SECCOMP_RET_KILL_PROCESS);
	emit(program, BPF_LD | BPF_W | BPF_ABS, (uint32_t)offsetof(struct seccomp_data, nr), 0, 0);
	emit_search(program, &sorted, 0, sorted.count);
}

/* The sanitizers' runtime makes calls of its own, so a build with them goes without. */
static int program_load(const struct program *program)
{
	struct sock_fprog loaded = { .len = program->length, .filter = (struct sock_filter *)program->code };

#ifdef __SANITIZE_ADDRESS__
	return loaded.len ? 0 : -EINVAL;
#else
	return hako_result(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &loaded));
#endif
}

int hako_seccomp_load(enum hako_filter filter)
{
	struct program program;

	program_make(&program, filter);
	return program.length > PROGRAM_MAX ? -E2BIG : program_load(&program);
}
