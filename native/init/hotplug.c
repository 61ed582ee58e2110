// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE

#include "hotplug.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

#define DRIVER "/sys/bus/platform/drivers/virtio-mmio/"
#define CPUS_MAX 256

static int text_write(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	int ret = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) < 0)
		ret = -errno;
	close(fd);
	return ret;
}

/* The name of the platform device whose registers begin at `address`: the outermost resource there. */
static int device_find(uint64_t address, char *name, size_t size)
{
	FILE *resources = fopen("/proc/iomem", "re");
	char line[256];
	int ret = -ENODEV;

	if (!resources)
		return -errno;
	while (ret && fgets(line, sizeof(line), resources)) {
		unsigned long long start;
		int at = 0;

		line[strcspn(line, "\n")] = 0;
		if (sscanf(line, " %llx-%*x : %n", &start, &at) < 1 || !at || start != address)
			continue;
		snprintf(name, size, "%s", line + at);
		ret = 0;
	}
	fclose(resources);
	return ret;
}

static int driver_change(const char *action, uint64_t address, bool bound)
{
	char name[128], path[256];
	int ret = device_find(address, name, sizeof(name));

	if (ret)
		return ret;
	snprintf(path, sizeof(path), DRIVER "%s", name);
	if ((access(path, F_OK) == 0) == bound)
		return 0;
	snprintf(path, sizeof(path), DRIVER "%s", action);
	return text_write(path, name);
}

/* Whether a vCPU is online; -ENOENT when there is none of this number. The first has no switch and is always on. */
static int cpu_state(unsigned int cpu)
{
	char path[64], state = '1';
	int fd;

	snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%u", cpu);
	if (access(path, F_OK) < 0)
		return -ENOENT;
	snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%u/online", cpu);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 1;
	if (read(fd, &state, 1) < 0)
		state = '0';
	close(fd);
	return state == '1';
}

/* Returns how many are online in the end: a vCPU that does not come or go is none of ours to force. */
static int cpus_set(unsigned int count)
{
	int online = 0;

	for (unsigned int cpu = 0; cpu < CPUS_MAX; cpu++) {
		int state = cpu_state(cpu);
		char path[64];

		if (state < 0)
			continue;
		if (state != (cpu < count)) {
			snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%u/online", cpu);
			text_write(path, cpu < count ? "1" : "0");
			state = cpu_state(cpu);
		}
		online += state == 1;
	}
	return online;
}

static void answer(int fd, int result, bool number)
{
	char line[HAKO_HOTPLUG_LINE_MAX];

	if (result < 0)
		snprintf(line, sizeof(line), "error %d\n", -result);
	else if (number)
		snprintf(line, sizeof(line), "ok %d\n", result);
	else
		snprintf(line, sizeof(line), "ok\n");
	/* Whoever asked may be gone. */
	if (send(fd, line, strlen(line), MSG_NOSIGNAL) < 0)
		shutdown(fd, SHUT_RDWR);
}

static void request_serve(int fd, const char *line)
{
	unsigned long long value;

	if (sscanf(line, "bind %llx", &value) == 1)
		answer(fd, driver_change("bind", value, true), false);
	else if (sscanf(line, "unbind %llx", &value) == 1)
		answer(fd, driver_change("unbind", value, false), false);
	else if (sscanf(line, "online %llu", &value) == 1 && value >= 1 && value <= CPUS_MAX)
		answer(fd, cpus_set((unsigned int)value), true);
	else
		answer(fd, -EINVAL, false);
}

/* Until the other side closes, or sends a line that is too long. */
static void host_serve(int fd)
{
	char buffer[HAKO_HOTPLUG_LINE_MAX];
	size_t length = 0;

	while (length < sizeof(buffer)) {
		ssize_t n = read(fd, buffer + length, sizeof(buffer) - length);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return;
		length += (size_t)n;
		for (char *end; (end = memchr(buffer, '\n', length));) {
			*end = 0;
			request_serve(fd, buffer);
			length -= (size_t)(end + 1 - buffer);
			memmove(buffer, end + 1, length);
		}
	}
}

int hako_hotplug_serve(void)
{
	struct sockaddr_vm address = {
		.svm_family = AF_VSOCK, .svm_port = HAKO_HOTPLUG_PORT, .svm_cid = VMADDR_CID_ANY,
	};
	int listener = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(listener, 4) < 0)
		return -errno;
	for (;;) {
		socklen_t size = sizeof(address);
		int fd = accept4(listener, (struct sockaddr *)&address, &size, SOCK_CLOEXEC);

		if (fd < 0)
			continue;
		/* A container has the same kernel, but not the host's context id. */
		if (address.svm_cid == VMADDR_CID_HOST)
			host_serve(fd);
		close(fd);
	}
}
