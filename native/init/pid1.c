// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE

#include "pid1.h"

#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "../kernel.h"
#include "hotplug.h"
#include "launch.h"
#include "server.h"

#define AGENT "/usr/bin/hako"
/* Agents, databases and web servers want more files than the kernel's 4096 for PID 1; soft stays 1024 (select). */
#define FILES_HARD 1048576
/* Under memory pressure containers go before the agent; PID 1 itself is exempt. */
#define AGENT_OOM_SCORE "-999"

uint64_t hako_monotonic_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

int hako_say(int error, const char *format, ...)
{
	char text[512];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	if (error)
		dprintf(2, "hako-init: %s: %s\n", text, strerror(error));
	else
		dprintf(2, "hako-init: %s\n", text);
	return -error;
}

static struct {
	uint64_t init, root, agent;
} times;

/* Whether a word stands on the kernel command line. */
static bool cmdline_has(const char *word)
{
	char line[4096];
	hako_auto_close int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
	ssize_t length = fd < 0 ? -1 : read(fd, line, sizeof(line) - 1);
	char *save = NULL;

	if (length <= 0)
		return false;
	line[length] = 0;
	for (char *at = strtok_r(line, " \n", &save); at; at = strtok_r(NULL, " \n", &save)) {
		if (!strcmp(at, word))
			return true;
	}
	return false;
}

static void times_print(void)
{
	if (!cmdline_has("hako.timing"))
		return;
	dprintf(2, "hako.timing init-start %llu\n", (unsigned long long)times.init);
	dprintf(2, "hako.timing root-mounted %llu\n", (unsigned long long)times.root);
	dprintf(2, "hako.timing agent-started %llu\n", (unsigned long long)times.agent);
}

/* The kernel opens /dev/console for us when the initramfs has it; else it exists since devtmpfs is mounted. */
static void console_open(void)
{
	int fd = fcntl(2, F_GETFD) >= 0 ? -1 : open("/dev/console", O_RDWR | O_NOCTTY);

	if (fd < 0)
		return;
	for (int i = 0; i < 3; i++)
		dup2(fd, i);
	if (fd > 2)
		close(fd);
}

static void file_limit_raise(void)
{
	struct rlimit limit = { .rlim_cur = 1024, .rlim_max = FILES_HARD };

	if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
		hako_say(errno, "cannot raise the limit of open files");
}

static _Noreturn void agent_exec(int socket)
{
	static char *const arguments[] = { AGENT, "agent", NULL };
	static char *const environment[] = {
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root",
		"TMPDIR=/tmp",
		/* Without the optimising compiler the agent has 10 MiB less after work (bun:ffi needs the other). */
		"BUN_JSC_useDFGJIT=0",
		"HAKO_LAUNCHER_FD=3",
		NULL,
	};
	hako_auto_close int score = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	sigset_t none;

	if (score < 0 || write(score, AGENT_OOM_SCORE, strlen(AGENT_OOM_SCORE)) < 0)
		hako_say(errno, "cannot set the agent's OOM score");
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setsid();
	/* dup2 onto itself would keep close-on-exec. */
	if (null < 0 || dup2(null, 0) < 0 || (socket == 3 ? fcntl(3, F_SETFD, 0) : dup2(socket, 3)) < 0)
		hako_say(errno, "cannot prepare the agent's descriptors");
	else
		execve(AGENT, arguments, environment);
	hako_say(errno, "cannot start %s", AGENT);
	_exit(127);
}

static int agent_start(struct hako_server *s)
{
	int pair[2];
	int ret;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		return hako_say(errno, "cannot make the launcher socket");
	ret = hako_server_init(s, pair[0]);
	if (ret)
		return hako_say(-ret, "cannot receive signals");
	pid = fork();
	if (pid < 0)
		return hako_say(errno, "cannot fork");
	if (pid == 0)
		agent_exec(pair[1]);
	close(pair[1]);
	s->agent = pid;
	return 0;
}

/*
 * Devices and vCPUs come and go by a process of its own: a driver's probe and a vCPU's start take their time, and
 * PID 1 has children to reap.
 */
static void hotplug_start(void)
{
	pid_t pid = fork();

	if (pid < 0)
		hako_say(errno, "cannot fork");
	if (pid)
		return;
	prctl(PR_SET_NAME, "hako-hotplug", 0, 0, 0);
	hako_say(-hako_hotplug_serve(), "cannot listen for the host's wishes");
	_exit(1);
}

static int boot(struct hako_server *s)
{
	int ret = hako_early_mounts();

	console_open();
	if (!ret)
		ret = hako_root_switch();
	times.root = hako_monotonic_ns();
	if (!ret)
		ret = hako_late_mounts();
	if (ret)
		return ret;
	ret = hako_loopback_up();
	if (ret)
		hako_say(-ret, "cannot set lo up");
	file_limit_raise();
	if (cmdline_has("hako.hotplug"))
		hotplug_start();
	ret = agent_start(s);
	times.agent = hako_monotonic_ns();
	return ret;
}

static void end_explain(struct hako_server *s, enum hako_end end)
{
	int status;

	if (end == HAKO_END_HANG_UP && hako_agent_wait(s))
		end = HAKO_END_AGENT_EXITED;
	status = s->agent_status;
	switch (end) {
	case HAKO_END_AGENT_EXITED:
		if (WIFSIGNALED(status))
			hako_say(0, "the agent was killed by signal %d; powering off", WTERMSIG(status));
		else
			hako_say(0, "the agent exited with code %d; powering off", WEXITSTATUS(status));
		break;
	case HAKO_END_POWER_OFF:
		break;
	case HAKO_END_HANG_UP:
		hako_say(0, "the agent closed its launcher socket; powering off");
		break;
	case HAKO_END_SIGNAL:
		hako_say(0, "asked by a signal; powering off");
		break;
	case HAKO_END_ERROR:
		hako_say(errno, "cannot poll; powering off");
		break;
	}
}

/*
 * With ACPI the machine can be switched off. Without, a power-off would only halt it, and its monitor would
 * wait for ever; a restart (triple fault, keyboard controller) ends it, as monitors are told not to reboot.
 */
static _Noreturn void power_off(void)
{
	struct stat st;

	hako_children_kill(true);
	hako_unmount_all();
	sync();
	if (stat("/sys/firmware/acpi", &st) == 0)
		reboot(RB_POWER_OFF);
	reboot(RB_AUTOBOOT);
	_exit(1);
}

_Noreturn void hako_pid1_run(void)
{
	struct hako_server server;

	times.init = hako_monotonic_ns();
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	umask(022);
	if (boot(&server) == 0) {
		times_print();
		end_explain(&server, hako_serve(&server));
	}
	power_off();
}
