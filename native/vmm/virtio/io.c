// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "io.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../wire.h"

#define COMPLETIONS		1024
/* The kernel's helper threads for what cannot be done at once (fsync, buffered writes); they count for cgroup pids. */
#define KERNEL_WORKERS		4
#define SUBMIT_TRIES		64

static struct {
	bool open;
	struct hako_io_user *users[HAKO_DEVICES_MAX];
	struct hako_source source;	/* the ring; fd -1 without one */

	uint32_t *sq_tail, *cq_head, *cq_tail;
	uint32_t sq_mask, cq_mask, sq_entries;
	struct io_uring_sqe *sqes;
	const struct io_uring_cqe *cqes;
	uint32_t queued;		/* entries that the kernel has not been told of */
} engine = { .source = { .fd = -1 } };

static int uring_enter(uint32_t submit, uint32_t wait)
{
	long ret = syscall(SYS_io_uring_enter, engine.source.fd, submit, wait, wait ? IORING_ENTER_GETEVENTS : 0,
			   NULL, 0);

	return ret < 0 ? -errno : (int)ret;
}

static int uring_register(int fd, uint32_t what, const void *argument, uint32_t count)
{
	return syscall(SYS_io_uring_register, fd, what, argument, count) < 0 ? -errno : 0;
}

static void io_complete(struct hako_io *io, int result)
{
	struct hako_io_user *user = engine.users[io->slot];

	user->in_flight--;
	user->unsettled = true;
	io->done(io, result);
}

static void users_settle(void)
{
	for (uint32_t i = 0; i < HAKO_DEVICES_MAX; i++) {
		struct hako_io_user *user = engine.users[i];

		if (!user || !user->unsettled)
			continue;
		user->unsettled = false;
		user->settled(user);
	}
}

static bool completions_take(void)
{
	bool any = false;

	if (engine.source.fd < 0)
		return false;
	for (;;) {
		uint32_t head = *engine.cq_head;
		const struct io_uring_cqe *cqe = &engine.cqes[head & engine.cq_mask];
		struct hako_io *io;
		int result;

		if (head == __atomic_load_n(engine.cq_tail, __ATOMIC_ACQUIRE))
			return any;
		io = (struct hako_io *)(uintptr_t)cqe->user_data;
		result = cqe->res;
		__atomic_store_n(engine.cq_head, head + 1, __ATOMIC_RELEASE);
		io_complete(io, result);
		any = true;
	}
}

static void ring_handle(struct hako_source *source, uint32_t events)
{
	(void)source;
	(void)events;
	hako_io_flush();
}

/* What the kernel will not take is given back as failed. */
static void queued_fail(int error)
{
	uint32_t tail = *engine.sq_tail;

	while (engine.queued) {
		struct io_uring_sqe *sqe = &engine.sqes[--tail & engine.sq_mask];

		__atomic_store_n(engine.sq_tail, tail, __ATOMIC_RELEASE);
		engine.queued--;
		io_complete((struct hako_io *)(uintptr_t)sqe->user_data, error);
	}
}

static void queued_submit(void)
{
	for (int tries = 0; engine.queued; tries++) {
		int ret = uring_enter(engine.queued, 0);

		if (ret >= 0) {
			engine.queued -= (uint32_t)ret;
			continue;
		}
		/* EAGAIN: no memory just now; EBUSY: completions must be taken first. */
		if ((ret != -EAGAIN && ret != -EBUSY && ret != -EINTR) || tries == SUBMIT_TRIES)
			queued_fail(-EIO);
		else
			completions_take();
	}
}

void hako_io_flush(void)
{
	/* What the page cache could answer is complete by now: no need to go through the event loop for it. */
	do
		queued_submit();
	while (completions_take() && engine.queued);
	users_settle();
}

static int io_perform(const struct hako_io *io, int fd)
{
	ssize_t ret;

	do {
		switch (io->operation) {
		case HAKO_IO_READ:
			ret = preadv(fd, io->iov, (int)io->count, (off_t)io->offset);
			break;
		case HAKO_IO_WRITE:
			ret = syscall(SYS_pwritev2, fd, io->iov, io->count, io->offset, 0l, io->mode);
			break;
		case HAKO_IO_SYNC:
			ret = fdatasync(fd);
			break;
		default:
			ret = fallocate(fd, io->mode, (off_t)io->offset, (off_t)io->length);
		}
	} while (ret < 0 && errno == EINTR);
	return ret < 0 ? -errno : (int)ret;
}

static void sqe_fill(struct io_uring_sqe *sqe, const struct hako_io *io)
{
	*sqe = (struct io_uring_sqe){
		.flags = IOSQE_FIXED_FILE,
		.fd = (int)io->slot,
		.off = io->offset,
		.user_data = (uintptr_t)io,
	};
	switch (io->operation) {
	case HAKO_IO_READ:
	case HAKO_IO_WRITE:
		sqe->opcode = io->operation == HAKO_IO_READ ? IORING_OP_READV : IORING_OP_WRITEV;
		sqe->addr = (uintptr_t)io->iov;
		sqe->len = io->count;
		sqe->rw_flags = io->operation == HAKO_IO_WRITE ? io->mode : 0;
		break;
	case HAKO_IO_SYNC:
		sqe->opcode = IORING_OP_FSYNC;
		sqe->off = 0;
		sqe->fsync_flags = IORING_FSYNC_DATASYNC;
		break;
	case HAKO_IO_ALLOCATE:
		sqe->opcode = IORING_OP_FALLOCATE;
		sqe->addr = io->length;
		sqe->len = (uint32_t)io->mode;
	}
}

void hako_io_submit(struct hako_io *io)
{
	struct hako_io_user *user = engine.users[io->slot];
	uint32_t tail;

	user->in_flight++;
	if (engine.source.fd < 0) {
		io_complete(io, io_perform(io, user->fd));
		return;
	}
	if (engine.queued == engine.sq_entries)
		hako_io_flush();
	tail = *engine.sq_tail;
	sqe_fill(&engine.sqes[tail & engine.sq_mask], io);
	__atomic_store_n(engine.sq_tail, tail + 1, __ATOMIC_RELEASE);
	engine.queued++;
}

void hako_io_drain(struct hako_io_user *user)
{
	for (hako_io_flush(); user->in_flight; hako_io_flush())
		uring_enter(0, 1);
}

/* ---- files */

static int file_register(uint32_t slot, int fd)
{
	struct io_uring_files_update update = { .offset = slot, .fds = (uintptr_t)&fd };
	long ret;

	if (engine.source.fd < 0)
		return 0;
	ret = syscall(SYS_io_uring_register, engine.source.fd, IORING_REGISTER_FILES_UPDATE, &update, 1);
	return ret < 0 ? -errno : 0;
}

int hako_io_attach(struct hako_io_user *user)
{
	int ret = file_register(user->slot, user->fd);

	if (ret == 0)
		engine.users[user->slot] = user;
	return ret;
}

int hako_io_replace(struct hako_io_user *user, int fd)
{
	int ret = file_register(user->slot, fd);

	if (ret == 0)
		user->fd = fd;
	return ret;
}

void hako_io_detach(struct hako_io_user *user)
{
	file_register(user->slot, -1);
	engine.users[user->slot] = NULL;
}

/* ---- the ring */

static int ring_restrict(int fd)
{
	static const uint8_t operations[] = {
		IORING_OP_READV, IORING_OP_WRITEV, IORING_OP_FSYNC, IORING_OP_FALLOCATE,
	};
	struct io_uring_restriction allowed[sizeof(operations) + 2];
	uint32_t count = 0;

	memset(allowed, 0, sizeof(allowed));
	for (; count < sizeof(operations); count++) {
		allowed[count].opcode = IORING_RESTRICTION_SQE_OP;
		allowed[count].sqe_op = operations[count];
	}
	allowed[count].opcode = IORING_RESTRICTION_REGISTER_OP;
	allowed[count++].register_op = IORING_REGISTER_FILES_UPDATE;
	allowed[count].opcode = IORING_RESTRICTION_SQE_FLAGS_REQUIRED;
	allowed[count++].sqe_flags = IOSQE_FIXED_FILE;
	return uring_register(fd, IORING_REGISTER_RESTRICTIONS, allowed, count);
}

static int ring_prepare(int fd)
{
	uint32_t workers[2] = { KERNEL_WORKERS, KERNEL_WORKERS };
	int files[HAKO_DEVICES_MAX];
	int ret;

	memset(files, -1, sizeof(files));
	ret = uring_register(fd, IORING_REGISTER_FILES, files, HAKO_DEVICES_MAX);
	if (ret < 0)
		return ret;
	/* Since 5.15; before it the kernel's own limits hold. */
	uring_register(fd, IORING_REGISTER_IOWQ_MAX_WORKERS, workers, 2);
	ret = ring_restrict(fd);
	if (ret < 0)
		return ret;
	return uring_register(fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
}

static int ring_map(int fd, const struct io_uring_params *params)
{
	size_t sq = params->sq_off.array + params->sq_entries * sizeof(uint32_t);
	size_t cq = params->cq_off.cqes + params->cq_entries * sizeof(struct io_uring_cqe);
	uint8_t *rings = mmap(NULL, sq > cq ? sq : cq, PROT_READ | PROT_WRITE, MAP_SHARED, fd, IORING_OFF_SQ_RING);
	uint32_t *array;

	if (rings == MAP_FAILED)
		return -errno;
	engine.sqes = mmap(NULL, params->sq_entries * sizeof(struct io_uring_sqe), PROT_READ | PROT_WRITE,
			   MAP_SHARED, fd, IORING_OFF_SQES);
	if (engine.sqes == MAP_FAILED) {
		int error = errno;

		munmap(rings, sq > cq ? sq : cq);
		return -error;
	}
	array = (uint32_t *)(rings + params->sq_off.array);
	for (uint32_t i = 0; i < params->sq_entries; i++)
		array[i] = i;
	engine.sq_tail = (uint32_t *)(rings + params->sq_off.tail);
	engine.sq_mask = *(uint32_t *)(rings + params->sq_off.ring_mask);
	engine.sq_entries = params->sq_entries;
	engine.cq_head = (uint32_t *)(rings + params->cq_off.head);
	engine.cq_tail = (uint32_t *)(rings + params->cq_off.tail);
	engine.cq_mask = *(uint32_t *)(rings + params->cq_off.ring_mask);
	engine.cqes = (const struct io_uring_cqe *)(rings + params->cq_off.cqes);
	return 0;
}

/* -errno: there is no ring. */
static int ring_open(struct hako_loop *loop, uint32_t entries)
{
	const uint32_t needed = IORING_FEAT_SINGLE_MMAP | IORING_FEAT_NODROP | IORING_FEAT_SUBMIT_STABLE;
	struct io_uring_params params = {
		.flags = IORING_SETUP_R_DISABLED | IORING_SETUP_CQSIZE,
		.cq_entries = COMPLETIONS,
	};
	int fd = (int)syscall(SYS_io_uring_setup, entries, &params);
	int ret;

	if (fd < 0)
		return -errno;
	ret = (params.features & needed) == needed ? ring_prepare(fd) : -ENOSYS;
	if (ret == 0)
		ret = ring_map(fd, &params);
	if (ret == 0) {
		engine.source = (struct hako_source){ .fd = fd, .handle = ring_handle };
		ret = hako_source_add(loop, &engine.source, EPOLLIN);
	}
	if (ret < 0) {
		close(fd);
		engine.source.fd = -1;
	}
	return ret;
}

int hako_io_open(struct hako_loop *loop, uint32_t entries)
{
	if (engine.open)
		return 0;
	engine.open = true;
	/* Hosts forbid io_uring by sysctl or seccomp (EPERM), or were built without it: no reason to fail. */
	if (entries)
		ring_open(loop, entries);
	return 0;
}

bool hako_io_ring(void)
{
	return engine.source.fd >= 0;
}
