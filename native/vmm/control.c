// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "control.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../kernel.h"
#include "machine.h"

/* A round takes a few messages at most, so that the devices get their turn. */
#define MESSAGES_A_ROUND 16

static _Alignas(8) uint8_t request_buffer[HAKO_MESSAGE_MAX];
static _Alignas(8) uint8_t reply_buffer[HAKO_MESSAGE_MAX];

void *hako_reply_reserve(struct hako_reply *reply, uint32_t length)
{
	void *room = reply->payload + reply->length;

	if (length > reply->capacity - reply->length)
		return NULL;
	memset(room, 0, length);
	reply->length += length;
	return room;
}

int hako_reply_fail(struct hako_reply *reply, int error, const char *format, ...)
{
	va_list arguments;
	int length;

	va_start(arguments, format);
	length = vsnprintf((char *)reply->payload, HAKO_ERROR_TEXT_MAX, format, arguments);
	va_end(arguments);
	if (length < 0)
		length = 0;
	reply->length = length < HAKO_ERROR_TEXT_MAX ? (uint32_t)length : HAKO_ERROR_TEXT_MAX - 1;
	return error;
}

static int packet_send(int socket, const struct hako_header *header, const void *payload, const int *fds,
		       uint32_t fd_count, int flags)
{
	struct iovec iov[] = {
		{ .iov_base = (void *)header, .iov_len = sizeof(*header) },
		{ .iov_base = (void *)payload, .iov_len = header->length - sizeof(*header) },
	};
	char control[CMSG_SPACE(HAKO_MESSAGE_FDS_MAX * sizeof(int))] __attribute__((aligned(8))) = { 0 };
	struct msghdr message = { .msg_iov = iov, .msg_iovlen = iov[1].iov_len ? 2 : 1 };
	ssize_t sent;

	if (fd_count) {
		struct cmsghdr *rights = (struct cmsghdr *)control;

		rights->cmsg_level = SOL_SOCKET;
		rights->cmsg_type = SCM_RIGHTS;
		rights->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
		memcpy(CMSG_DATA(rights), fds, fd_count * sizeof(int));
		message.msg_control = control;
		message.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
	}
	do
		sent = sendmsg(socket, &message, MSG_NOSIGNAL | flags);
	while (sent < 0 && errno == EINTR);
	return sent < 0 ? -errno : 0;
}

int hako_control_event(struct hako_machine *machine, uint16_t type, const void *payload, uint32_t length,
		       const int *fds, uint32_t fd_count, bool wait)
{
	struct hako_header header = {
		.length = (uint32_t)sizeof(header) + length,
		.version = HAKO_WIRE_VERSION,
		.type = type,
	};
	int socket = machine->control.peer.fd;

	if (socket < 0)
		return -ENOTCONN;
	return packet_send(socket, &header, payload, fds, fd_count, wait ? 0 : MSG_DONTWAIT);
}

void hako_control_drop(struct hako_machine *machine)
{
	struct hako_control *control = &machine->control;

	if (control->peer.fd < 0)
		return;
	hako_source_remove(&machine->loop, &control->peer);
	hako_close(&control->peer.fd);
	hako_source_modify(&machine->loop, &control->listener, EPOLLIN);
}

static int fds_take(struct hako_request *request, struct msghdr *message)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
		uint32_t count;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		count = (uint32_t)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(request->fds + request->fd_count, CMSG_DATA(c), count * sizeof(int));
		request->fd_count += count;
	}
	return message->msg_flags & (MSG_TRUNC | MSG_CTRUNC) ? -EPROTO : 0;
}

/* Returns 1 with a packet, 0 when there is none now, -EPIPE at the end; *error is what is wrong with the packet. */
static int packet_receive(int socket, struct hako_request *request, uint32_t *length, int *error)
{
	struct iovec iov = { .iov_base = request_buffer, .iov_len = sizeof(request_buffer) };
	char control[CMSG_SPACE(HAKO_MESSAGE_FDS_MAX * sizeof(int))] __attribute__((aligned(8)));
	struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	ssize_t got = recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	request->fd_count = 0;
	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (got <= 0)
		return -EPIPE;
	*length = (uint32_t)got;
	*error = fds_take(request, &message);
	return 1;
}

static int header_check(const struct hako_header *header, uint32_t length)
{
	if (length < sizeof(*header) || header->length != length || header->version != HAKO_WIRE_VERSION ||
	    !header->id || header->status || header->type & HAKO_REPLY)
		return -EPROTO;
	return 0;
}

/* A manager that does not take its replies loses the connection: nothing here waits for it. */
static int packet_handle(struct hako_machine *machine, struct hako_request *request, uint32_t length, int error)
{
	struct hako_reply reply = {
		.payload = reply_buffer,
		.capacity = sizeof(reply_buffer) - sizeof(struct hako_header),
	};
	struct hako_header header = { 0 };
	int ret;

	if (length >= sizeof(header))
		memcpy(&header, request_buffer, sizeof(header));
	if (!error)
		error = header_check(&header, length);
	request->type = header.type;
	request->payload = request_buffer + sizeof(header);
	request->length = length - (uint32_t)sizeof(header);
	if (error)
		hako_reply_fail(&reply, error, "not a message of version %d", HAKO_WIRE_VERSION);
	else
		error = hako_request_handle(machine, request, &reply);
	for (uint32_t i = 0; i < request->fd_count; i++)
		hako_close(&request->fds[i]);

	header.length = (uint32_t)sizeof(header) + reply.length;
	header.version = HAKO_WIRE_VERSION;
	header.type |= HAKO_REPLY;
	header.status = error;
	ret = packet_send(machine->control.peer.fd, &header, reply.payload, NULL, 0, MSG_DONTWAIT);
	if (reply.last)
		_exit(0);
	return ret;
}

static void peer_handle(struct hako_source *source, uint32_t events)
{
	struct hako_machine *machine = hako_container_of(source, struct hako_machine, control.peer);

	(void)events;
	for (int i = 0; i < MESSAGES_A_ROUND; i++) {
		struct hako_request request;
		uint32_t length = 0;
		int error = 0;
		int ret = packet_receive(source->fd, &request, &length, &error);

		if (!ret)
			return;
		if (ret < 0 || packet_handle(machine, &request, length, error)) {
			hako_control_drop(machine);
			return;
		}
	}
}

static void listener_handle(struct hako_source *source, uint32_t events)
{
	struct hako_machine *machine = hako_container_of(source, struct hako_machine, control.listener);
	struct hako_control *control = &machine->control;
	int fd = accept4(source->fd, NULL, NULL, SOCK_CLOEXEC);

	(void)events;
	if (fd < 0)
		return;
	control->peer.fd = fd;
	if (hako_source_add(&machine->loop, &control->peer, EPOLLIN)) {
		hako_close(&control->peer.fd);
		return;
	}
	hako_source_modify(&machine->loop, source, 0);
	if (machine->state == HAKO_STATE_ENDED)
		hako_machine_finish(machine);
}

int hako_control_open(struct hako_machine *machine, int listener)
{
	struct hako_control *control = &machine->control;

	control->listener = (struct hako_source){ .fd = listener, .handle = listener_handle };
	control->peer = (struct hako_source){ .fd = -1, .handle = peer_handle };
	return hako_source_add(&machine->loop, &control->listener, EPOLLIN);
}
