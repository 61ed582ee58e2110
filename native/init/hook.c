// SPDX-License-Identifier: Apache-2.0
/*
 * Hooks of the OCI runtime specification that run on the container's side: createContainer with the outer root
 * still in place, startContainer inside, with the rights of the container. Each reads the container's state as
 * JSON from its standard input.
 */
#define _GNU_SOURCE

#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

#include "../kernel.h"
#include "launch.h"
#include "wire.h"

/* What a hook says on standard error is told, as far as it fits beside its path. */
#define SAID_MAX 200

struct run {
	pid_t pid;
	int pidfd, said;	/* readable at its end; what it says */
	char text[SAID_MAX];
	size_t length;
};

bool hako_hooks_exist(const struct hako_request *q, uint32_t kind)
{
	for (uint32_t i = 0; i < q->hook_count; i++) {
		if (q->hooks[i].kind == kind)
			return true;
	}
	return false;
}

/* A file in memory rather than a pipe: a hook that does not read must not end us by SIGPIPE. */
static int state_open(const struct hako_launch *l, const struct hako_hook *hook)
{
	hako_auto_close int fd = memfd_create("hako-state", MFD_CLOEXEC);
	int ret;

	if (fd < 0 || dprintf(fd, "%s%d%s", hook->state_before, l->outer_pid, hook->state_after) < 0 ||
	    lseek(fd, 0, SEEK_SET) < 0)
		return -errno;
	ret = fd;
	fd = -1;
	return ret;
}

static _Noreturn void hook_execute(const struct hako_hook *hook, int state, int said)
{
	sigset_t none;
	int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

	/* Without a /dev/null its output goes where its messages go. */
	if (dup2(state, 0) < 0 || dup2(null >= 0 ? null : said, 1) < 0 || dup2(said, 2) < 0)
		_exit(127);
	hako_close_range(3, ~0U);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	execve(hook->path, hook->args, hook->env);
	dprintf(2, "%s", strerror(errno));
	_exit(127);
}

static int hook_start(const struct hako_hook *hook, int state, struct run *run)
{
	int said[2];

	/* Only our end does not wait: a hook may expect that what it says is taken. */
	if (pipe2(said, O_CLOEXEC) < 0)
		return -errno;
	fcntl(said[0], F_SETFL, O_NONBLOCK);
	run->pid = fork();
	if (run->pid == 0)
		hook_execute(hook, state, said[1]);
	close(said[1]);
	run->said = said[0];
	if (run->pid < 0)
		return -errno;
	run->pidfd = hako_result(syscall(SYS_pidfd_open, run->pid, 0));
	return run->pidfd < 0 ? run->pidfd : 0;
}

/* Keeps the beginning and reads the rest away, so that the hook never waits for us. Returns false at the end. */
static bool said_read(struct run *run)
{
	char more[4096];
	ssize_t length = read(run->said, more, sizeof(more));
	size_t room = sizeof(run->text) - 1 - run->length;
	size_t kept;

	if (length <= 0)
		return length < 0 && (errno == EAGAIN || errno == EINTR);
	kept = (size_t)length < room ? (size_t)length : room;
	memcpy(run->text + run->length, more, kept);
	run->length += kept;
	return true;
}

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Waits for the end; what a hook left behind may go on holding its standard error. */
static int hook_wait(struct run *run, uint32_t timeout)
{
	int64_t end = now_ms() + (int64_t)timeout * 1000;

	for (;;) {
		struct pollfd polled[] = {
			{ .fd = run->pidfd, .events = POLLIN },
			{ .fd = run->said, .events = POLLIN },
		};
		int64_t left = timeout ? end - now_ms() : INT_MAX;

		if (left <= 0)
			return -ETIMEDOUT;
		if (poll(polled, HAKO_ARRAY_LENGTH(polled), left > INT_MAX ? INT_MAX : (int)left) < 0 && errno != EINTR)
			return -errno;
		if (polled[1].revents && !said_read(run))
			hako_close(&run->said);
		if (polled[0].revents)
			break;
	}
	said_read(run);
	return 0;
}

static int hook_run(const struct hako_launch *l, const struct hako_hook *hook)
{
	struct run run = { .pid = -1, .pidfd = -1, .said = -1 };
	hako_auto_close int state = state_open(l, hook);
	int status = 0;
	int ret = state < 0 ? state : hook_start(hook, state, &run);

	if (!ret)
		ret = hook_wait(&run, hook->timeout);
	if (ret && run.pid > 0)
		kill(run.pid, SIGKILL);
	if (run.pid > 0)
		waitpid(run.pid, &status, 0);
	hako_close(&run.pidfd);
	hako_close(&run.said);
	if (ret)
		return hako_fail(l, HAKO_STEP_HOOK, ret, "%s", hook->path);
	if (status == 0)
		return 0;
	run.text[strcspn(run.text, "\n")] = 0;
	return hako_fail(l, HAKO_STEP_HOOK, -ENOTRECOVERABLE, "%s (%s %d)%s%s", hook->path,
			 WIFSIGNALED(status) ? "signal" : "exit code",
			 WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), run.length ? ": " : "", run.text);
}

int hako_hooks_run(const struct hako_launch *l, uint32_t kind)
{
	const struct hako_request *q = l->request;

	for (uint32_t i = 0; i < q->hook_count; i++) {
		int ret = q->hooks[i].kind == kind ? hook_run(l, &q->hooks[i]) : 0;

		if (ret)
			return ret;
	}
	return 0;
}
