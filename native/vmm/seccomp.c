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

/* The most frequent first. */
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

#define PROGRAM_MAX 256

struct program {
	struct sock_filter code[PROGRAM_MAX];
	uint16_t length;
};

static void emit(struct program *program, uint16_t code, uint32_t k, uint8_t if_true, uint8_t if_false)
{
	if (program->length < PROGRAM_MAX)
		program->code[program->length] = (struct sock_filter)BPF_JUMP(code, k, if_true, if_false);
	program->length++;
}

static void emit_return(struct program *program, uint32_t action)
{
	emit(program, BPF_RET | BPF_K, action, 0, 0);
}

static uint8_t rule_length(const struct rule *rule)
{
	return rule->check == ANYTHING ? 1 : rule->check == ONE_OF ? (uint8_t)(rule->count + 3) : 4;
}

/* Entered when the number fits; returns, whatever the argument is. Jumps are relative to the next instruction. */
static void emit_rule(struct program *program, const struct rule *rule)
{
	if (rule->check != ANYTHING)
		emit(program, BPF_LD | BPF_W | BPF_ABS, (uint32_t)offsetof(struct seccomp_data, args[rule->argument]), 0, 0);
	if (rule->check == NONE_OF_BITS)
		emit(program, BPF_JMP | BPF_JSET | BPF_K, rule->values[0], 0, 1);
	if (rule->check == ONE_OF) {
		for (uint32_t i = 0; i < rule->count; i++)
			emit(program, BPF_JMP | BPF_JEQ | BPF_K, rule->values[i], (uint8_t)(rule->count - i), 0);
	}
	if (rule->check != ANYTHING)
		emit_return(program, SECCOMP_RET_KILL_PROCESS);
	emit_return(program, SECCOMP_RET_ALLOW);
}

static void program_make(struct program *program, enum hako_filter filter)
{
	program->length = 0;
	emit(program, BPF_LD | BPF_W | BPF_ABS, (uint32_t)offsetof(struct seccomp_data, arch), 0, 0);
	emit(program, BPF_JMP | BPF_JEQ | BPF_K, ARCH, 1, 0);
	emit_return(program, SECCOMP_RET_KILL_PROCESS);
	emit(program, BPF_LD | BPF_W | BPF_ABS, (uint32_t)offsetof(struct seccomp_data, nr), 0, 0);
	for (size_t i = 0; i < HAKO_ARRAY_LENGTH(rules); i++) {
		if (!(rules[i].filters & 1u << filter))
			continue;
		emit(program, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)rules[i].call, 0, rule_length(&rules[i]));
		emit_rule(program, &rules[i]);
	}
	emit_return(program, SECCOMP_RET_KILL_PROCESS);
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
