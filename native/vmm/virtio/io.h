/* SPDX-License-Identifier: Apache-2.0 */
/*
 * File I/O for block and pmem: one io_uring for the whole process, or, where the kernel does not give one, plain
 * system calls in the event thread. Guarded by the machine's lock.
 *
 * The ring can do four operations and nothing else, on the files registered in its table and on no others (it is
 * restricted before it is enabled), because io_uring is not subject to seccomp.
 */
#ifndef HAKO_VMM_VIRTIO_IO_H
#define HAKO_VMM_VIRTIO_IO_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "../event.h"

enum hako_io_operation {
	HAKO_IO_READ,		/* iov, count, offset */
	HAKO_IO_WRITE,		/* the same */
	HAKO_IO_SYNC,		/* data and what is needed to find it */
	HAKO_IO_ALLOCATE,	/* mode (FALLOC_FL_*), offset, length */
};

struct hako_io {
	enum hako_io_operation operation;
	uint32_t slot;		/* of the file, as in hako_io_attach */
	uint64_t offset, length;
	const struct iovec *iov;	/* must stay until `done` */
	uint32_t count;
	int mode;		/* HAKO_IO_WRITE: RWF_* */
	/* Called from submit, poll or wait. `result`: bytes, or -errno. May free the request. */
	void (*done)(struct hako_io *io, int result);
};

/* A device's file. */
struct hako_io_user {
	uint32_t slot;		/* the device's */
	int fd;			/* borrowed */
	uint32_t in_flight;
	/* Called after a round of `done`, if one was this user's: time to interrupt the driver. */
	void (*settled)(struct hako_io_user *user);
	bool unsettled;
};

#define HAKO_IO_ENTRIES	128

/*
 * Makes the ring with room for `entries` requests to be handed over at once; 0: do without. Once a process; later
 * calls do nothing. main does it before the seccomp filter, which does not let a ring be made.
 */
int hako_io_open(struct hako_loop *loop, uint32_t entries);
/* Whether there is a ring. */
bool hako_io_ring(void);

/* A user's file; without a ring its requests are done one by one. */
int hako_io_attach(struct hako_io_user *user);
/* Puts another file in the place of the user's; nothing may be in flight. */
int hako_io_replace(struct hako_io_user *user, int fd);
void hako_io_detach(struct hako_io_user *user);

/* Hands a request over; it goes to the kernel with the next flush, at the latest, which also calls `settled`. */
void hako_io_submit(struct hako_io *io);
void hako_io_flush(void);
/* Returns once nothing of this user is in flight. */
void hako_io_drain(struct hako_io_user *user);

#endif
