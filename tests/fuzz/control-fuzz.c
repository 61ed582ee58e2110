// SPDX-License-Identifier: Apache-2.0
/*
 * A broken or hostile manager: the input is a series of messages on the control socket, with descriptors of several
 * sorts. KVM is played by a few lines that agree to everything; the threads of vCPUs always stand.
 *
 * What must hold: no finding of the sanitizers, an answer to every message, nothing left when all is taken apart.
 */
#include <errno.h>
#include <linux/if_tun.h>
#include <linux/kvm.h>
#include <net/if.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "../../native/vmm/machine.h"
#include "../../native/vmm/virtio/device.h"
#include "../../native/vmm/virtio/io.h"

#define RUN_BYTES	8192
#define MEMORY_MOST	(1u << 20)
#define MESSAGE_MOST	8192
#define MSRS		3

static struct hako_machine *machine = &hako_the_machine;
static struct sockaddr_un address = { .sun_family = AF_UNIX };
static int client = -1;

/* ---- what the kernel would do */

int __real_ioctl(int fd, unsigned long what, void *argument);

static int file_make(off_t size)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, size) < 0)
		abort();
	return fd;
}

int __wrap_ioctl(int fd, unsigned long what, void *argument)
{
	uint32_t *words = argument;

	switch (what) {
	case KVM_GET_API_VERSION:
		return KVM_API_VERSION;
	case KVM_CHECK_EXTENSION:
		return 1;
	case KVM_GET_VCPU_MMAP_SIZE:
		return RUN_BYTES;
	case KVM_CREATE_VM:
	case KVM_CREATE_VCPU:
		return file_make(RUN_BYTES);
	case KVM_GET_MSR_INDEX_LIST:
		if (words[0] < MSRS) {
			words[0] = MSRS;
			errno = E2BIG;
			return -1;
		}
		words[0] = MSRS;
		memset(words + 1, 0x10, MSRS * sizeof(words[0]));
		return 0;
	case KVM_GET_MSRS:
	case KVM_SET_MSRS:
		return (int)words[0];
	case TUNGETIFF:
		((struct ifreq *)argument)->ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
		return 0;
	}
	if ((what & 0xff00) == KVMIO << 8 || (what & 0xff00) == 'T' << 8)
		return 0;
	return __real_ioctl(fd, what, argument);
}

/* The one thread that there is to make is a vCPU's. */
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument)
{
	(void)thread;
	(void)attributes;
	(void)run;
	((struct hako_vcpu *)argument)->standing = true;
	return 0;
}

/* ---- the manager */

static void turn(void)
{
	for (int round = 0; round < 1000; round++) {
		if (hako_loop_turn(&machine->loop, &machine->lock, 0) <= 0)
			return;
	}
	abort();
}

static void client_connect(void)
{
	client = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (connect(client, (struct sockaddr *)&address, sizeof(address)) < 0)
		abort();
	turn();
}

static int descriptor_make(uint8_t sort)
{
	struct sockaddr_un none = { .sun_family = AF_UNIX };
	int pair[2];

	switch (sort % 4) {
	case 0:
		return file_make(70000);
	case 1:
		return eventfd(0, EFD_CLOEXEC);
	case 2:
		if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
			abort();
		close(pair[1]);
		return pair[0];
	default:
		pair[0] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		/* An address of the kernel's choice. */
		if (bind(pair[0], (struct sockaddr *)&none, sizeof(sa_family_t)) < 0 || listen(pair[0], 1) < 0)
			abort();
		return pair[0];
	}
}

/* Reads all there is; whether an answer to `id` was among it. */
static bool answer_take(uint32_t id)
{
	static uint8_t buffer[HAKO_MESSAGE_MAX];
	struct hako_header header;
	bool answered = false;
	ssize_t length;

	while ((length = recv(client, buffer, sizeof(buffer), MSG_DONTWAIT)) > 0) {
		if ((size_t)length < sizeof(header))
			abort();
		memcpy(&header, buffer, sizeof(header));
		if (header.length != length || header.version != HAKO_WIRE_VERSION)
			abort();
		answered |= header.id == id && header.type & HAKO_REPLY;
	}
	return answered;
}

/* Keeps what is asked for to a size that can be read through in no time. */
static void payload_tame(uint16_t type, uint8_t *payload, uint32_t length)
{
	struct hako_memory_add *add = (void *)payload;
	struct hako_device_add *device = (void *)payload;
	struct hako_mem *mem = (void *)(device + 1);

	if (type == HAKO_MEMORY_ADD && length >= sizeof(*add))
		add->size &= MEMORY_MOST - 1;
	if (type == HAKO_DEVICE_ADD && length >= sizeof(*device) + sizeof(*mem) && device->kind == HAKO_KIND_MEM)
		mem->size &= (16u << 20) - 1;
}

static void message_send(const uint8_t *input, size_t size, uint8_t type, uint8_t shape)
{
	static _Alignas(8) uint8_t packet[sizeof(struct hako_header) + MESSAGE_MOST];
	char control[CMSG_SPACE(4 * sizeof(int))] __attribute__((aligned(8))) = { 0 };
	struct hako_header *header = (void *)packet;
	uint32_t count = shape % 4;
	struct iovec iov = { .iov_base = packet, .iov_len = sizeof(*header) + size };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };
	int fds[4];

	*header = (struct hako_header){ .length = (uint32_t)iov.iov_len, .version = HAKO_WIRE_VERSION, .type = type, .id = 7 };
	memcpy(packet + sizeof(*header), input, size);
	payload_tame(type, packet + sizeof(*header), (uint32_t)size);
	if (shape >= 0xf8)
		packet[shape % 8 * 2] ^= (uint8_t)(shape + type);
	/* STOP would end this process. */
	if (header->type == HAKO_STOP)
		header->type = HAKO_HELLO;
	for (uint32_t i = 0; i < count; i++)
		fds[i] = descriptor_make((uint8_t)(shape >> (2 + i * 2)));
	if (count) {
		struct cmsghdr *rights = (struct cmsghdr *)control;

		*rights = (struct cmsghdr){ .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS,
					    .cmsg_len = CMSG_LEN(count * sizeof(int)) };
		memcpy(CMSG_DATA(rights), fds, count * sizeof(int));
		message.msg_control = control;
		message.msg_controllen = CMSG_SPACE(count * sizeof(int));
	}
	if (sendmsg(client, &message, MSG_NOSIGNAL) < 0)
		abort();
	for (uint32_t i = 0; i < count; i++)
		close(fds[i]);
	turn();
	if (!answer_take(header->id))
		abort();
}

/* ---- one life */

static void machine_take_apart(void)
{
	close(client);
	turn();
	if (machine->control.peer.fd >= 0)
		abort();
	hako_devices_quiesce(machine);
	for (uint32_t i = 0; i < HAKO_DEVICES_MAX; i++) {
		if (machine->devices[i])
			hako_virtio_close(machine->devices[i]);
		machine->devices[i] = NULL;
		machine->device_gpa[i] = 0;
	}
	while (machine->memory.count)
		hako_memory_remove(&machine->memory, machine->memory.regions[0].slot);
	for (uint32_t i = 0; i < machine->config.vcpus; i++) {
		munmap(machine->vcpus[i].run, RUN_BYTES);
		close(machine->vcpus[i].fd);
	}
	memset(machine->vcpus, 0, sizeof(machine->vcpus));
	memset(&machine->config, 0, sizeof(machine->config));
	for (int *fd = (int[]){ machine->kvm, machine->vm, machine->console, -1 }; *fd >= 0; fd++)
		close(*fd);
	machine->kvm = machine->vm = machine->console = machine->memory.vm_fd = -1;
	machine->memory.window_gpa = machine->memory.window_size = 0;
	machine->halted = false;
	machine->state = HAKO_STATE_EMPTY;
	machine->complete = false;
	machine->arch = NULL;
}

#include "control-seed.h"

/* With HAKO_FUZZ_SEEDS=FOLDER it writes its seeds there, and that is all. */
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	const char *folder = getenv("HAKO_FUZZ_SEEDS");
	int listener;

	(void)argc;
	(void)argv;
	if (folder) {
		seeds_write(folder);
		exit(0);
	}
	signal(SIGPIPE, SIG_IGN);
	snprintf(address.sun_path + 1, sizeof(address.sun_path) - 1, "hako-control-fuzz-%d", getpid());
	listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (bind(listener, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(listener, 4) < 0 ||
	    hako_machine_init(machine) < 0 || hako_io_open(&machine->loop, HAKO_IO_ENTRIES) < 0 ||
	    hako_control_open(machine, listener) < 0)
		abort();
	return 0;
}

/* Each message: type, shape (descriptors; what is wrong with the header), length of the payload, payload. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	client_connect();
	while (size >= 4) {
		size_t length = data[2] | (size_t)data[3] << 8;

		if (length > size - 4)
			length = size - 4;
		if (length > MESSAGE_MOST)
			length = MESSAGE_MOST;
		message_send(data + 4, length, data[0], data[1]);
		data += 4 + length;
		size -= 4 + length;
	}
	machine_take_apart();
	return 0;
}
