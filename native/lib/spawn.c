/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../hako.h"

#define STACK_SIZE (64 * 1024)

/* What the child sees: it runs in our memory, while the calling thread waits for it to execute its program. */
struct child {
	const struct hako_spawn *spawn;
	int error;	/* of the step that failed in the child */
};

/*
 * The descriptors wanted become 0, 1, … and nothing else stays but the program, close-on-exec. They are first moved
 * above all their new places, or one could be closed before it was copied.
 */
static int descriptors_set(const struct hako_spawn *spawn)
{
	int above = (int)spawn->fd_count + 1;
	int program = fcntl(spawn->program, F_DUPFD_CLOEXEC, above);
	int moved[HAKO_SPAWN_FDS_MAX];

	if (program < 0)
		return -errno;
	for (uint32_t i = 0; i < spawn->fd_count; i++) {
		moved[i] = fcntl(spawn->fds[i], F_DUPFD_CLOEXEC, above);
		if (moved[i] < 0)
			return -errno;
	}
	for (uint32_t i = 0; i < spawn->fd_count; i++) {
		if (dup2(moved[i], (int)i) < 0)
			return -errno;
	}
	program = dup3(program, (int)spawn->fd_count, O_CLOEXEC);
	if (program < 0 || syscall(SYS_close_range, program + 1, ~0U, 0) < 0)
		return -errno;
	return program;
}

/* Raw calls alone: the C library's state is the parent's. Signals are blocked, and their handlers gone. */
static void child_run(struct child *child)
{
	const struct hako_spawn *spawn = child->spawn;
	int program = descriptors_set(spawn);
	uint64_t none = 0;

	if (program >= 0) {
		setsid();
		syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, sizeof(none));
		syscall(SYS_execveat, program, "", spawn->arguments, spawn->environment, AT_EMPTY_PATH);
		program = -errno;
	}
	child->error = program;
	_exit(127);
}

/*
 * clone3(2) with a stack for the child. Both return from the system call, so the child must not come back into this
 * frame: it calls `run` on its own stack, and that never returns.
 */
static long clone_run(struct clone_args *args, void (*run)(struct child *), struct child *child)
{
	long ret;

#if defined(__x86_64__)
	register void (*child_function)(struct child *) __asm__("r12") = run;
	register struct child *child_argument __asm__("r13") = child;

	__asm__ volatile("syscall\n\t"
			 "test %%rax, %%rax\n\t"
			 "jnz 1f\n\t"
			 "xor %%ebp, %%ebp\n\t"
			 "mov %%r13, %%rdi\n\t"
			 "call *%%r12\n\t"
			 "ud2\n"
			 "1:"
			 : "=a"(ret)
			 : "a"((long)SYS_clone3), "D"(args), "S"(sizeof(*args)), "r"(child_function),
			   "r"(child_argument)
			 : "rcx", "r11", "memory");
#elif defined(__aarch64__)
	register long number __asm__("x8") = SYS_clone3;
	register long first __asm__("x0") = (long)args;
	register long second __asm__("x1") = sizeof(*args);
	register void (*child_function)(struct child *) __asm__("x20") = run;
	register struct child *child_argument __asm__("x21") = child;

	__asm__ volatile("svc #0\n\t"
			 "cbnz x0, 1f\n\t"
			 "mov x29, xzr\n\t"
			 "mov x0, x21\n\t"
			 "blr x20\n\t"
			 "brk #1\n"
			 "1:"
			 : "+r"(first)
			 : "r"(second), "r"(number), "r"(child_function), "r"(child_argument)
			 : "memory");
	ret = first;
#endif
	return ret;
}

static int64_t spawn_on(void *stack, const struct hako_spawn *spawn, int32_t *pidfd)
{
	struct child child = { .spawn = spawn };
	struct clone_args args = {
		.flags = spawn->namespaces | CLONE_VM | CLONE_VFORK | CLONE_PIDFD | CLONE_CLEAR_SIGHAND,
		.pidfd = (uintptr_t)pidfd,
		.exit_signal = SIGCHLD,
		.stack = (uintptr_t)stack,
		.stack_size = STACK_SIZE,
	};
	sigset_t all, before;
	siginfo_t info;
	long pid;

	if (spawn->cgroup >= 0) {
		args.flags |= CLONE_INTO_CGROUP;
		args.cgroup = (uint64_t)spawn->cgroup;
	}
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pid = clone_run(&args, child_run, &child);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (pid < 0 || !child.error)
		return pid;
	waitid(P_PIDFD, (id_t)*pidfd, &info, WEXITED);
	close(*pidfd);
	return child.error;
}

int64_t hako_spawn(const struct hako_spawn *spawn, int32_t *pidfd)
{
	void *stack;
	int64_t ret;

	if (spawn->fd_count > HAKO_SPAWN_FDS_MAX)
		return -EINVAL;
	stack = mmap(NULL, STACK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
	if (stack == MAP_FAILED)
		return -errno;
	ret = spawn_on(stack, spawn, pidfd);
	munmap(stack, STACK_SIZE);
	return ret;
}
