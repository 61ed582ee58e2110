// SPDX-License-Identifier: Apache-2.0
/* The report socket: what becomes of a launch. */
#define _GNU_SOURCE

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "../kernel.h"
#include "launch.h"
#include "wire.h"

int hako_report(int socket, const void *message, size_t size, int fd)
{
	struct iovec iov = { .iov_base = (void *)message, .iov_len = size };
	struct msghdr header = { .msg_iov = &iov, .msg_iovlen = 1 };
	char control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8))) = { 0 };

	if (fd >= 0) {
		struct cmsghdr *cmsg;

		header.msg_control = control;
		header.msg_controllen = sizeof(control);
		cmsg = CMSG_FIRSTHDR(&header);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(cmsg), &fd, sizeof(int));
	}
	return hako_result(sendmsg(socket, &header, MSG_NOSIGNAL)) < 0 ? -errno : 0;
}

int hako_fail(const struct hako_launch *l, uint32_t step, int error, const char *format, ...)
{
	struct {
		uint32_t op, step;
		int32_t error;
		char detail[HAKO_DETAIL_MAX];
	} message = { .op = HAKO_OP_FAILED, .step = step, .error = -error };
	va_list arguments;
	ssize_t sent;
	int length;

	va_start(arguments, format);
	length = vsnprintf(message.detail, sizeof(message.detail), format, arguments);
	va_end(arguments);
	if (length < 0)
		length = 0;
	if (length >= HAKO_DETAIL_MAX)
		length = HAKO_DETAIL_MAX - 1;
	/* write(2) rather than sendmsg(2): a seccomp filter may be loaded already, and nearly all allow it. */
	sent = write(l->report, &message, sizeof(message) - HAKO_DETAIL_MAX + (size_t)length);
	(void)sent;	/* an agent that is not there any more needs no report */
	return error;
}

int hako_gate(const struct hako_launch *l, uint32_t report, uint32_t answer)
{
	uint32_t op = report;
	ssize_t length;
	int ret = hako_report(l->report, &op, sizeof(op), -1);

	if (ret)
		return ret;
	do {
		length = read(l->report, &op, sizeof(op));
	} while (length < 0 && errno == EINTR);
	return length == (ssize_t)sizeof(op) && op == answer ? 0 : -ECANCELED;
}
