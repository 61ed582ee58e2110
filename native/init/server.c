// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE

#include "server.h"

#include <dirent.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

#include "../kernel.h"
#include "launch.h"
#include "wire.h"

#define REAP_ROUND 64
/* A process that does not die of SIGKILL (it waits for a dead device) must not keep the machine on. */
#define KILL_WAIT_MS 3000
#define AGENT_WAIT_MS 1000

int hako_server_init(struct hako_server *s, int socket)
{
	static const int handled[] = { SIGCHLD, SIGTERM, SIGINT, SIGPWR };
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < HAKO_ARRAY_LENGTH(handled); i++)
		sigaddset(&set, handled[i]);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return -errno;
	memset(s, 0, sizeof(*s));
	s->socket = socket;
	s->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return s->signals < 0 ? -errno : 0;
}

/* The wait status as wait4(2) would give it. */
static int wait_status(const siginfo_t *info)
{
	switch (info->si_code) {
	case CLD_EXITED:
		return (info->si_status & 0xff) << 8;
	case CLD_DUMPED:
		return info->si_status | 0x80;
	default:
		return info->si_status;
	}
}

/*
 * A child is looked at first and reaped only when its EXIT message is on its way: so an agent that does not
 * read costs zombies, which are bounded by the cgroups' pids limits, and never an exit status.
 */
static int exit_report(struct hako_server *s, const siginfo_t *info)
{
	struct {
		uint32_t op, tag;
		int32_t pid, status;
	} message = { HAKO_OP_EXIT, 0, info->si_pid, wait_status(info) };

	return hako_result(send(s->socket, &message, sizeof(message), MSG_NOSIGNAL | MSG_DONTWAIT));
}

/*
 * Reaps some of the exited children, so that launches get their turn however many processes come and go.
 * Returns true when the agent was among the dead.
 */
static bool children_reap(struct hako_server *s)
{
	bool agent_gone = false;

	s->backlog = false;
	s->unreaped = false;
	for (int reaped = 0; reaped < REAP_ROUND; reaped++) {
		siginfo_t info = { 0 };

		if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT | __WALL) < 0 || !info.si_pid)
			return agent_gone;
		if (info.si_pid == s->agent) {
			agent_gone = true;
			s->agent_status = wait_status(&info);
		} else if (exit_report(s, &info) == -EAGAIN) {
			s->backlog = true;
			return agent_gone;
		}
		waitpid(info.si_pid, NULL, __WALL);
	}
	s->unreaped = true;
	return agent_gone;
}

struct message {
	uint32_t words[3];
	size_t length;
	int fds[HAKO_LAUNCH_FDS_MAX];
	uint32_t fd_count;
};

static void message_fds_take(struct message *m, struct msghdr *header)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		m->fd_count = (uint32_t)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(m->fds, CMSG_DATA(c), m->fd_count * sizeof(int));
	}
}

/* Returns 0 with a message, -EAGAIN when there is none now, another error at the end. */
static int message_receive(int socket, struct message *m)
{
	struct iovec iov = { .iov_base = m->words, .iov_len = sizeof(m->words) };
	char control[CMSG_SPACE(sizeof(m->fds))] __attribute__((aligned(8)));
	struct msghdr header = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	ssize_t length = recvmsg(socket, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	memset(m->fds, -1, sizeof(m->fds));
	m->fd_count = 0;
	if (length < 0 && (errno == EINTR || errno == ENOMEM || errno == ENOBUFS))
		return -EAGAIN;
	if (length <= 0)
		return length < 0 ? -errno : -EPIPE;
	m->length = (size_t)length;
	message_fds_take(m, &header);
	return 0;
}

static void message_release(struct message *m)
{
	for (uint32_t i = 0; i < m->fd_count; i++)
		close(m->fds[i]);
}

static int helper_clone(const struct message *m, int *pidfd, bool *in_cgroup)
{
	uint32_t cgroup = m->words[2];
	struct clone_args args = {
		.flags = CLONE_PIDFD,
		.pidfd = (uintptr_t)pidfd,
		.exit_signal = SIGCHLD,
	};
	int ret = -ENOSYS;

	*in_cgroup = cgroup < m->fd_count;
	if (*in_cgroup) {
		args.flags |= CLONE_INTO_CGROUP;
		args.cgroup = (uint64_t)m->fds[cgroup];
		ret = hako_clone3(&args);
		/* EBADF is a cgroup v1 directory: the helper enters it by itself. */
		if (ret >= 0 || (ret != -EBADF && ret != -ENOSYS))
			return ret;
		*in_cgroup = false;
	}
	return hako_result(syscall(SYS_clone, CLONE_PIDFD | SIGCHLD, NULL, pidfd, NULL, 0));
}

static void launch_handle(struct hako_server *s, const struct message *m)
{
	struct {
		uint32_t op;
		int32_t pid;
	} born = { HAKO_OP_HELPER, 0 };
	hako_auto_close int pidfd = -1;
	bool in_cgroup;
	int pid;

	if (m->length != sizeof(m->words) || m->fd_count < 2)
		return;
	pid = helper_clone(m, &pidfd, &in_cgroup);
	if (pid == 0) {
		close(s->socket);
		close(s->signals);
		hako_launch(m->fds, m->fd_count, in_cgroup);
	}
	if (pid < 0) {
		struct hako_launch failed = { .report = m->fds[1] };

		hako_fail(&failed, HAKO_STEP_CLONE, pid, "helper");
		return;
	}
	born.pid = pid;
	hako_report(m->fds[1], &born, sizeof(born), pidfd);
}

/* Returns false when the loop shall end, with the reason in *end. */
static bool socket_handle(struct hako_server *s, enum hako_end *end)
{
	for (;;) {
		struct message m;
		int ret = message_receive(s->socket, &m);

		if (ret == -EAGAIN)
			return true;
		if (ret) {
			*end = HAKO_END_HANG_UP;
			return false;
		}
		if (m.length >= sizeof(uint32_t) && m.words[0] == HAKO_OP_LAUNCH)
			launch_handle(s, &m);
		message_release(&m);
		if (m.length >= sizeof(uint32_t) && m.words[0] == HAKO_OP_POWER_OFF) {
			*end = HAKO_END_POWER_OFF;
			return false;
		}
	}
}

/* Returns true when a signal asks for the end. */
static bool signals_take(struct hako_server *s)
{
	struct signalfd_siginfo info;
	bool end = false;

	while (read(s->signals, &info, sizeof(info)) == (ssize_t)sizeof(info))
		end |= info.ssi_signo != SIGCHLD;
	return end;
}

enum hako_end hako_serve(struct hako_server *s)
{
	for (;;) {
		struct pollfd polled[] = {
			{ .fd = s->signals, .events = POLLIN },
			{ .fd = s->socket, .events = POLLIN | (s->backlog ? POLLOUT : 0) },
		};
		bool reap = s->unreaped;
		enum hako_end end;

		if (poll(polled, HAKO_ARRAY_LENGTH(polled), reap ? 0 : -1) < 0 && errno != EINTR)
			return HAKO_END_ERROR;
		if (polled[0].revents && signals_take(s))
			return HAKO_END_SIGNAL;
		reap |= polled[0].revents || polled[1].revents & POLLOUT;
		if (reap && children_reap(s))
			return HAKO_END_AGENT_EXITED;
		if (polled[1].revents & ~POLLOUT && !socket_handle(s, &end))
			return end;
	}
}

/* Signals our own children, found by their parent in /proc/<pid>/stat. */
static void own_children_signal(void)
{
	DIR *proc = opendir("/proc");
	struct dirent *entry;

	while (proc && (entry = readdir(proc))) {
		char path[64], stat[512];
		hako_auto_close int fd = -1;
		const char *after_name;
		int pid = atoi(entry->d_name);
		int parent;
		ssize_t length;

		if (pid <= 0)
			continue;
		snprintf(path, sizeof(path), "/proc/%d/stat", pid);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		length = fd < 0 ? -1 : read(fd, stat, sizeof(stat) - 1);
		if (length <= 0)
			continue;
		stat[length] = 0;
		after_name = strrchr(stat, ')');
		if (after_name && sscanf(after_name, ") %*c %d", &parent) == 1 && parent == getpid())
			kill(pid, SIGKILL);
	}
	if (proc)
		closedir(proc);
}

static void pause_ms(long ms)
{
	struct timespec pause = { .tv_nsec = ms * 1000000 };

	nanosleep(&pause, NULL);
}

void hako_children_kill(bool everyone)
{
	for (int waited = 0; waited < KILL_WAIT_MS; waited += 5) {
		pid_t pid;

		if (everyone)
			kill(-1, SIGKILL);
		else
			own_children_signal();
		while ((pid = waitpid(-1, NULL, WNOHANG | __WALL)) > 0)
			;
		if (pid < 0)
			return;
		pause_ms(5);
	}
}

bool hako_agent_wait(struct hako_server *s)
{
	for (int waited = 0; waited < AGENT_WAIT_MS; waited += 5) {
		if (waitpid(s->agent, &s->agent_status, WNOHANG) == s->agent)
			return true;
		pause_ms(5);
	}
	return false;
}
