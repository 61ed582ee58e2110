// SPDX-License-Identifier: Apache-2.0
/*
 * A hostile driver: the input is a program for it, one byte of operation and then its operands. It writes registers,
 * configuration and rings, rewrites them at any time, kicks, resets, saves and restores; and at the other end of the
 * device it is the host, with sockets, packets and files. DEVICE chooses the kind of device.
 *
 * What must hold: no finding of the sanitizers, an event loop that comes to rest, and a state that can be restored.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <net/if.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "../../native/vmm/virtio/io.h"
#include "../fixtures/vmm-device/fake-machine.h"

#define RINGS		0x0	/* in low memory, one of RING_BYTES for each queue */
#define RING_BYTES	0x400
#define RING_SIZE	16
#define QUEUES		6
#define STATE_MAX	4096
#define CLIENTS		8

enum operation {
	REGISTER_WRITE, REGISTER_READ, CONFIG_WRITE, DRIVER_START, DESCRIPTOR, OFFER, KICK, TURN, MEMORY_WRITE,
	QUIESCE, RESUME, SAVE_RESTORE, RESTORE, UPDATE, CHAIN, HOST, OPERATIONS,
};

static struct hako_machine machine;
static struct ring rings[QUEUES];
static int host_fds[CLIENTS];
static struct sockaddr_un address = { .sun_family = AF_UNIX };
static const uint8_t *input;
static size_t input_left;

static uint64_t take(uint32_t bytes)
{
	uint64_t value = 0;

	for (uint32_t i = 0; i < bytes && input_left; i++, input_left--)
		value |= (uint64_t)*input++ << (8 * i);
	return value;
}

/* An address that lies in memory mostly: low, high, read-only; at ends of regions, in the hole, anywhere. */
static uint64_t take_address(void)
{
	uint64_t value = take(2);

	switch (take(1) % 8) {
	case 0:
		return HIGH_GPA + value % HIGH_SIZE;
	case 1:
		return READ_ONLY_GPA + value;
	case 2:
		return LOW_SIZE - value % 64;
	case 3:
		return HIGH_GPA + HIGH_SIZE - value % 64;
	case 4:
		return (4ull << 20) + (value << 8);	/* pmem and mem have their regions here */
	case 5:
		return take(8);
	default:
		return value % LOW_SIZE;
	}
}

/* ---- the host's side */

int __real_ioctl(int fd, unsigned long what, void *argument);

/* A socket of packets plays the TAP. */
int __wrap_ioctl(int fd, unsigned long what, void *argument)
{
	if (what == TUNGETIFF)
		((struct ifreq *)argument)->ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
	return (what & 0xff00) == ('T' << 8) ? 0 : __real_ioctl(fd, what, argument);
}

static int pair_open(int type, int index)
{
	int pair[2];

	if (socketpair(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		abort();
	host_fds[index] = pair[1];
	return pair[0];
}

static int file_open(off_t size)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, size) < 0)
		abort();
	return fd;
}

static int listener_open(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, CLIENTS) < 0)
		abort();
	return fd;
}

static void device_open(void)
{
	static const struct hako_block block = { .size = 70001, .serial = "fuzz" };
	static const struct hako_net net = { .mac = { 2, 0, 0, 0, 0, 1 }, .mtu = 1500 };
	static const struct hako_vsock vsock = { .cid = 3 };
	static const struct hako_pmem pmem = { .gpa = 4 << 20, .size = 2 << 20, .memory_slot = 9 };
	static const struct hako_console console = { .columns = 80, .rows = 25 };
	static const struct hako_balloon balloon = { .target = 1 << 20 };
	static const struct hako_mem mem = { .gpa = 4 << 20, .size = 16 << 20, .block_size = 2 << 20,
					     .requested = 8 << 20, .memory_slot = 9 };
	static const void *const configs[] = {
		[HAKO_KIND_BLOCK] = &block, [HAKO_KIND_NET] = &net, [HAKO_KIND_VSOCK] = &vsock, [HAKO_KIND_PMEM] = &pmem,
		[HAKO_KIND_CONSOLE] = &console, [HAKO_KIND_BALLOON] = &balloon, [HAKO_KIND_MEM] = &mem,
	};
	struct hako_device_add add = { .slot = 2, .kind = DEVICE, .id = "fuzz", .queue_size = RING_SIZE };
	int fds[2], count = 0;

	switch (DEVICE) {
	case HAKO_KIND_BLOCK:
		fds[count++] = file_open(70001);
		add.queues = 2;
		break;
	case HAKO_KIND_NET:
		fds[count++] = pair_open(SOCK_SEQPACKET, 0);
		fds[count++] = pair_open(SOCK_SEQPACKET, 1);
		add.queues = 2;
		break;
	case HAKO_KIND_VSOCK:
		fds[count++] = listener_open();
		break;
	case HAKO_KIND_PMEM:
		fds[count++] = file_open(2 << 20);
		break;
	case HAKO_KIND_CONSOLE:
		fds[count++] = pair_open(SOCK_STREAM, 0);
		fds[count++] = pair_open(SOCK_STREAM, 1);
		break;
	case HAKO_KIND_BALLOON:
		add.flags = HAKO_BALLOON_REPORTING | HAKO_BALLOON_DEFLATE_ON_OOM;
		break;
	default:
		break;
	}
	if (fake_device_open(&machine, &add, configs[DEVICE], fds, (uint32_t)count) < 0)
		abort();
}

static void host_close(void)
{
	for (int i = 0; i < CLIENTS; i++) {
		if (host_fds[i] >= 0)
			close(host_fds[i]);
		host_fds[i] = -1;
	}
}

static void client_open(int index)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (host_fds[index] >= 0)
		close(host_fds[index]);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		close(fd);
		fd = -1;
	}
	host_fds[index] = fd;
}

/* Something happens at the host's end: clients and packets come and go. */
static void host_act(void)
{
	uint8_t bytes[256];
	int index = (int)(take(1) % CLIENTS);
	uint32_t length, action = (uint32_t)take(1) % 8;

	if (action == 0 && DEVICE == HAKO_KIND_VSOCK) {
		client_open(index);
	} else if (action == 1 && DEVICE == HAKO_KIND_VSOCK) {
		client_open(index);
		if (host_fds[index] >= 0)
			send(host_fds[index], "CONNECT 5\n", 10, MSG_NOSIGNAL);
	} else if (action == 2 && machine.event_fd >= 0) {
		if (host_fds[index] >= 0)
			close(host_fds[index]);
		host_fds[index] = machine.event_fd;
		machine.event_fd = -1;
	} else if (action == 3) {
		machine.no_manager = !machine.no_manager;
	} else if (host_fds[index] >= 0 && action == 4) {
		shutdown(host_fds[index], (int)take(1) % 3);
	} else if (host_fds[index] >= 0 && action == 5 && DEVICE == HAKO_KIND_VSOCK) {
		close(host_fds[index]);
		host_fds[index] = -1;
	} else if (host_fds[index] >= 0 && action == 6) {
		while (recv(host_fds[index], bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
			;
	} else if (host_fds[index] >= 0) {
		length = (uint32_t)take(1);
		for (uint32_t i = 0; i < length; i++)
			bytes[i] = (uint8_t)take(1);
		send(host_fds[index], bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT);
	}
}

/* ---- the driver's side */

static struct ring *take_ring(void)
{
	return &rings[take(1) % QUEUES];
}

static void driver_start(uint64_t features)
{
	features |= 1ull << VIRTIO_F_VERSION_1 | (DEVICE == HAKO_KIND_MEM ? 2 : 0);
	fake_negotiate(&machine, features & machine.device->features);
	for (uint32_t i = 0; i < QUEUES; i++)
		ring_open(&rings[i], &machine, i, RINGS + i * RING_BYTES, RING_SIZE);
	fake_driver_ok(&machine);
}

static void memory_write(uint64_t gpa)
{
	uint32_t length = (uint32_t)take(1) % 64;
	uint8_t *host = hako_memory_at(&machine.memory, gpa, length, true);

	for (uint32_t i = 0; host && i < length; i++)
		host[i] = (uint8_t)take(1);
}

/* A whole request: some bytes to read, some room to write. The usual way in, so that inputs get far. */
static void chain_offer(void)
{
	struct ring *ring = take_ring();
	uint16_t head = (uint16_t)(take(1) % RING_SIZE), next = (uint16_t)((head + 1) % RING_SIZE);
	uint64_t read_at = take_address(), write_at = take_address();
	uint32_t shape = (uint32_t)take(1), read_length = (uint32_t)take(1) % 128, write_length = (uint32_t)take(2);
	uint8_t *host = hako_memory_at(&machine.memory, read_at, read_length, true);

	for (uint32_t i = 0; host && i < read_length; i++)
		host[i] = (uint8_t)take(1);
	if (shape & 4)
		read_length += (uint32_t)take(2);
	if (!read_length) {
		ring_desc(ring, head, write_at, write_length, VRING_DESC_F_WRITE, 0);
	} else {
		ring_desc(ring, head, read_at, read_length, write_length ? VRING_DESC_F_NEXT : 0, next);
		ring_desc(ring, next, write_at, write_length, VRING_DESC_F_WRITE | (shape & 1 ? VRING_DESC_F_NEXT : 0),
			  (uint16_t)((next + 1) % RING_SIZE));
	}
	ring_offer(ring, head);
	if (shape & 2)
		fake_write(&machine, VIRTIO_MMIO_QUEUE_NOTIFY, ring->queue);
}

static void save_restore(void)
{
	static uint8_t state[STATE_MAX];
	struct hako_bytes bytes = { .data = state, .capacity = sizeof(state) };

	hako_virtio_quiesce(machine.device);
	hako_virtio_save(machine.device, &bytes);
	if (bytes.failed)
		abort();
	fake_device_close(&machine);
	host_close();
	device_open();
	bytes.capacity = 0;
	/* With mem the rings may have lain in memory that is not there in the new machine. */
	if (hako_virtio_restore(machine.device, &bytes) < 0 && DEVICE != HAKO_KIND_MEM && DEVICE != HAKO_KIND_PMEM)
		abort();
}

/* A state that somebody made up. */
static void restore(void)
{
	static uint8_t state[STATE_MAX];
	struct hako_bytes bytes = { .data = state, .capacity = sizeof(state) };

	hako_virtio_quiesce(machine.device);
	hako_virtio_save(machine.device, &bytes);
	for (uint32_t i = (uint32_t)take(1) % 8; i; i--)
		state[take(2) % bytes.length] = (uint8_t)take(1);
	fake_device_close(&machine);
	host_close();
	device_open();
	bytes.capacity = 0;
	if (hako_virtio_restore(machine.device, &bytes) < 0) {
		fake_device_close(&machine);
		host_close();
		device_open();
	}
}

static void update(void)
{
	static uint8_t config[512];
	const struct hako_virtio_ops *ops = machine.device->ops;
	uint32_t length = (uint32_t)ops->update_size;
	int fd = -1;

	if (!ops->update)
		return;
	for (uint32_t i = 0; i < length; i++)
		config[i] = (uint8_t)take(1);
	if (DEVICE == HAKO_KIND_BLOCK && take(1) % 2)
		fd = file_open((off_t)take(2));
	ops->update(machine.device, config, &fd, fd >= 0);
	if (fd >= 0)
		close(fd);
}

static void step(enum operation operation)
{
	uint64_t value;
	uint32_t offset;
	struct ring *ring;

	switch (operation) {
	case REGISTER_WRITE:
		offset = (uint32_t)take(1) * 4 % 0x110;
		fake_write(&machine, offset, (uint32_t)take(4));
		break;
	case REGISTER_READ:
		offset = (uint32_t)take(2) % 4096;
		hako_virtio_read(machine.device, offset, &value, 1u << take(1) % 4);
		break;
	case CONFIG_WRITE:
		offset = VIRTIO_MMIO_CONFIG + (uint32_t)take(1);
		value = take(8);
		hako_virtio_write(machine.device, offset, &value, 1u << take(1) % 4);
		break;
	case DRIVER_START:
		driver_start(take(8));
		break;
	case DESCRIPTOR:
		ring = take_ring();
		offset = (uint32_t)take(1) % RING_SIZE;
		value = take_address();
		ring_desc(ring, offset, value, (uint32_t)take(take(1) % 4 + 1), (uint16_t)take(1), (uint16_t)take(1));
		break;
	case OFFER:
		ring_offer(take_ring(), (uint16_t)take(take(1) % 2 + 1));
		break;
	case KICK:
		fake_write(&machine, VIRTIO_MMIO_QUEUE_NOTIFY, (uint32_t)take(1) % 8);
		break;
	case TURN:
		fake_machine_turn(&machine, 0);
		break;
	case MEMORY_WRITE:
		memory_write(take_address());
		break;
	case QUIESCE:
		hako_virtio_quiesce(machine.device);
		break;
	case RESUME:
		hako_virtio_resume(machine.device);
		break;
	case SAVE_RESTORE:
		save_restore();
		break;
	case RESTORE:
		restore();
		break;
	case UPDATE:
		update();
		break;
	case CHAIN:
		chain_offer();
		break;
	default:
		host_act();
	}
}

#include "device-seed.h"

/* With HAKO_FUZZ_SEEDS=FOLDER it writes its seeds there, and that is all. */
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	const char *folder = getenv("HAKO_FUZZ_SEEDS");

	(void)argc;
	(void)argv;
	if (folder) {
		seeds_write(folder);
		exit(0);
	}
	/* As main does: whoever reads a console may go away. */
	signal(SIGPIPE, SIG_IGN);
	/* An abstract address: its first byte is 0, and there is no file. */
	snprintf(address.sun_path + 1, sizeof(address.sun_path) - 1, "hako-fuzz-%d", getpid());
	memset(host_fds, -1, sizeof(host_fds));
	fake_machine_open(&machine);
	/* One of the two ways of I/O each. */
	hako_io_open(&machine.loop, DEVICE == HAKO_KIND_BLOCK ? 64 : 0);
	for (uint32_t i = 0; i < QUEUES; i++) {
		rings[i] = (struct ring){ .queue = i, .size = RING_SIZE };
		rings[i].desc = guest(&machine, RINGS + i * RING_BYTES);
		rings[i].avail = guest(&machine, RINGS + i * RING_BYTES + RING_SIZE * 16);
	}
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	input = data;
	input_left = size;
	memset(guest(&machine, 0), 0, LOW_SIZE);
	memset(guest(&machine, HIGH_GPA), 0, HIGH_SIZE);
	machine.no_manager = false;
	device_open();
	driver_start(take(1) & 1 ? ~0ull : 0);
	while (input_left)
		step((enum operation)(take(1) % OPERATIONS));
	fake_machine_turn(&machine, 0);
	fake_device_close(&machine);
	host_close();
	if (machine.event_fd >= 0)
		close(machine.event_fd);
	machine.event_fd = -1;
	if (machine.memory.count != 3)
		abort();
	return 0;
}
