// SPDX-License-Identifier: Apache-2.0
/*
 * hako-init. As PID 1 it runs the guest; as "hako-init --launcher" it starts containers for an agent outside a
 * virtual machine, whose socket is descriptor 3.
 */
#define _GNU_SOURCE

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>

#include "../kernel.h"
#include "pid1.h"
#include "server.h"

#define LAUNCHER_SOCKET 3
#define SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U	/* since Linux 6.3 */
#endif

static int memfd_create_executable(void)
{
	int fd = memfd_create("hako-init", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC);

	return fd < 0 && errno == EINVAL ? memfd_create("hako-init", MFD_CLOEXEC | MFD_ALLOW_SEALING) : fd;
}

/*
 * A container could name our program file as /proc/<pid>/exe and, once we are gone, write to it. So the
 * launcher runs from a sealed copy in memory. (PID 1 never goes, which keeps its file from being written.)
 */
static int run_from_sealed_copy(char **argv)
{
	static char *const environment[] = { NULL };
	hako_auto_close int self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	hako_auto_close int copy = -1;
	struct stat st;
	off_t offset = 0;
	int seals;

	if (self < 0 || fstat(self, &st) < 0)
		return -errno;
	seals = fcntl(self, F_GET_SEALS);
	if (seals >= 0 && (seals & SEALS) == SEALS)
		return 0;
	copy = memfd_create_executable();
	if (copy < 0)
		return -errno;
	while (offset < st.st_size) {
		if (sendfile(copy, self, &offset, (size_t)(st.st_size - offset)) <= 0)
			return errno ? -errno : -EIO;
	}
	if (fcntl(copy, F_ADD_SEALS, SEALS) < 0)
		return -errno;
	syscall(SYS_execveat, copy, "", argv, environment, AT_EMPTY_PATH);
	return -errno;
}

static void stdio_fill(void)
{
	int fd;

	do {
		fd = open("/dev/null", O_RDWR);
	} while (fd >= 0 && fd <= 2);
	if (fd > 2)
		close(fd);
}

static int launcher_run(char **argv)
{
	struct hako_server server;
	int ret;

	if (fcntl(LAUNCHER_SOCKET, F_GETFD) < 0)
		return hako_say(errno, "descriptor %d is not the agent's socket", LAUNCHER_SOCKET);
	stdio_fill();
	ret = run_from_sealed_copy(argv);
	if (ret)
		return hako_say(-ret, "cannot run from a sealed copy");
	prctl(PR_SET_NAME, "hako-init", 0, 0, 0);
	if (fcntl(LAUNCHER_SOCKET, F_SETFD, FD_CLOEXEC) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 ||
	    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0)
		return hako_say(errno, "cannot become a subreaper");
	hako_close_range(LAUNCHER_SOCKET + 1, ~0U);
	ret = hako_server_init(&server, LAUNCHER_SOCKET);
	if (ret)
		return hako_say(-ret, "cannot receive signals");
	hako_serve(&server);
	hako_children_kill(false);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "--launcher"))
		return launcher_run(argv) ? 1 : 0;
	if (getpid() == 1)
		hako_pid1_run();
	dprintf(2, "hako-init runs as PID 1 of a guest, or as \"hako-init --launcher\" for an agent\n");
	return 2;
}
