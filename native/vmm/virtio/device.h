/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtio device on its MMIO transport (VIRTIO 1.2, 4.2). transport.c owns registers, status, queues, the
 * irqfd and one ioeventfd a queue; a device is a table of functions beside a structure that begins with
 * struct hako_virtio. All functions are called with the machine's lock held. SIGPIPE is ignored in this process.
 */
#ifndef HAKO_VMM_VIRTIO_DEVICE_H
#define HAKO_VMM_VIRTIO_DEVICE_H

#include <stdatomic.h>
#include <stddef.h>

#include "../event.h"
#include "../wire.h"
#include "queue.h"

#define HAKO_QUEUES_MAX		18

struct hako_machine;
struct hako_virtio;

/* Bytes of a device's state: written front to back, read the same way. Reading beyond the end sets `failed`. */
struct hako_bytes {
	uint8_t *data;
	uint32_t length, capacity;	/* reading: length is how much there is, capacity how far it was read */
	bool failed;
};
void hako_bytes_put(struct hako_bytes *bytes, const void *data, uint32_t length);
void hako_bytes_get(struct hako_bytes *bytes, void *data, uint32_t length);

/* What DEVICE_ADD brought. The kind takes over the descriptors that it wants and sets them to -1 here. */
struct hako_device_request {
	const struct hako_device_add *add;
	const void *config;		/* the kind's structure; its length was checked against config_size */
	int *fds;
	uint32_t fd_count;
};

struct hako_virtio_ops {
	uint32_t kind;			/* HAKO_KIND_* */
	const char *name;
	size_t instance_size;		/* of the structure that begins with struct hako_virtio; zeroed */
	size_t config_size;		/* exact length of the kind's structures in DEVICE_ADD */
	size_t update_size;		/* the same for DEVICE_UPDATE; 0: none */
	uint16_t queue_size;		/* most entries a queue when the request says 0 */

	/* Sets features, queue_count and config of `virtio`; on failure frees what it took. 0 or -errno. */
	int (*open)(struct hako_virtio *virtio, const struct hako_device_request *request);
	void (*close)(struct hako_virtio *virtio);
	/* DRIVER_OK with checked queues; optional. On failure the device needs a reset. */
	int (*activate)(struct hako_virtio *virtio);
	/*
	 * Back to the state before activate, with no request in flight any more; optional. Called after a successful
	 * activate only: when the driver resets the device, when the device is broken, and before close.
	 */
	void (*reset)(struct hako_virtio *virtio);
	/* The driver has put something into a queue. 0, or -EPROTO: the device needs a reset. */
	int (*notify)(struct hako_virtio *virtio, uint32_t queue);
	/* Device configuration space; optional. `offset` and `length` (1, 2, 4 or 8) lie inside of it. */
	void (*config_read)(struct hako_virtio *virtio, uint32_t offset, void *data, uint32_t length);
	void (*config_write)(struct hako_virtio *virtio, uint32_t offset, const void *data, uint32_t length);
	/*
	 * Optional, of active devices only. Stops taking requests and waits until none is in flight; resume goes on.
	 * While quiet a device is not notified; after resume it is notified of every queue.
	 */
	void (*quiesce)(struct hako_virtio *virtio);
	void (*resume)(struct hako_virtio *virtio);
	/*
	 * The kind's own state beside that of the transport; optional. -EINVAL for state that makes no sense.
	 * restore comes before activate, with driver_features already set.
	 */
	void (*save)(struct hako_virtio *virtio, struct hako_bytes *bytes);
	int (*restore)(struct hako_virtio *virtio, struct hako_bytes *bytes);
	/* Optional. The kind takes over the descriptors that it wants and sets them to -1. */
	int (*update)(struct hako_virtio *virtio, const void *update, int *fds, uint32_t fd_count);
	/* Optional. Appends the kind's numbers by hako_metric_add. */
	void (*metrics)(struct hako_virtio *virtio);
};

struct hako_notifier {
	struct hako_source source;	/* eventfd: KVM's ioeventfd, and hako_virtio_kick */
	struct hako_virtio *virtio;
};

struct hako_virtio {
	const struct hako_virtio_ops *ops;
	struct hako_machine *machine;
	const struct hako_memory *memory;
	struct hako_loop *loop;
	char id[HAKO_ID_MAX];
	uint32_t slot, gsi;
	uint64_t gpa;

	/* Offered; the transport adds VIRTIO_F_VERSION_1, VIRTIO_RING_F_EVENT_IDX and VIRTIO_RING_F_INDIRECT_DESC. */
	uint64_t features;
	uint64_t required;		/* a driver that does not accept these is refused */
	uint64_t driver_features;	/* accepted */
	uint32_t config_size;		/* bytes of configuration space */
	uint32_t queue_count;
	struct hako_queue queues[HAKO_QUEUES_MAX];

	/* Registers; the transport's own. */
	uint32_t status;
	uint32_t features_select, driver_features_select, queue_select;
	atomic_uint interrupt_status;
	uint32_t config_generation;
	bool active, broken, quiet;
	int irqfd;
	struct hako_notifier notifiers[HAKO_QUEUES_MAX];
};

/* Whether the device may touch its queues now: there is a driver, it kept to the rules, and the machine is not paused. */
static inline bool hako_virtio_running(const struct hako_virtio *virtio)
{
	return virtio->active && !virtio->broken && !virtio->quiet;
}

static inline bool hako_virtio_accepted(const struct hako_virtio *virtio, uint32_t feature)
{
	return virtio->driver_features >> feature & 1;
}

/* The kinds that there are. */
extern const struct hako_virtio_ops hako_virtio_block, hako_virtio_net, hako_virtio_vsock, hako_virtio_pmem,
	hako_virtio_console, hako_virtio_rng, hako_virtio_balloon, hako_virtio_mem;

/* ---- transport.c, for the machine */

/* The kind with this id, or NULL. */
const struct hako_virtio_ops *hako_virtio_find_kind(uint32_t kind);

/* Makes a device of the request's kind. 0, or -errno with a reason in `error` (HAKO_ERROR_TEXT_MAX bytes). */
int hako_virtio_open(struct hako_machine *machine, const struct hako_device_request *request,
		     struct hako_virtio **virtio, char *error);
void hako_virtio_close(struct hako_virtio *virtio);
/* Joins interrupt and queues with KVM, once its controllers are there; before, it does nothing. 0 or -errno. */
int hako_virtio_connect(struct hako_virtio *virtio);
/* A register access of 1, 2, 4 or 8 bytes at `offset` below 4096, from a vCPU's thread. */
void hako_virtio_read(struct hako_virtio *virtio, uint32_t offset, void *data, uint32_t length);
void hako_virtio_write(struct hako_virtio *virtio, uint32_t offset, const void *data, uint32_t length);
/*
 * quiesce: for PAUSE and DEVICE_GET, and for every device around hako_virtio_close of one that has memory of its own
 * (pmem, mem): others may have requests in flight there. resume: for RESUME, START (a restored device is quiet) and
 * after such a close; finds the rings in guest memory anew. Both may be called twice.
 */
void hako_virtio_quiesce(struct hako_virtio *virtio);
void hako_virtio_resume(struct hako_virtio *virtio);
/* State of transport, queues and kind; restore wires a driver's queues up again as activate would. */
void hako_virtio_save(struct hako_virtio *virtio, struct hako_bytes *bytes);
int hako_virtio_restore(struct hako_virtio *virtio, struct hako_bytes *bytes);

/* ---- transport.c, for the kinds */

/* Interrupts the driver if it wants to hear of what was pushed. */
void hako_virtio_signal_queue(struct hako_virtio *virtio, uint32_t queue);
/* The configuration space has changed. */
void hako_virtio_signal_config(struct hako_virtio *virtio);
/* Has the queue's notify called from the event loop: a handler that has done its share gives way to others. */
void hako_virtio_kick(struct hako_virtio *virtio, uint32_t queue);
/*
 * The guest broke the rules, or what is behind the device is gone: DEVICE_NEEDS_RESET, nothing is done until the driver
 * resets the device. The kind's reset is called a moment later, from the event loop.
 */
void hako_virtio_break(struct hako_virtio *virtio, int error);

/* ---- machine.c and bus.c, for the devices */

/* -1 while the machine has no interrupt controllers, see hako_machine_complete. */
int hako_machine_vm_fd(struct hako_machine *machine);
struct hako_memory *hako_machine_memory(struct hako_machine *machine);
struct hako_loop *hako_machine_loop(struct hako_machine *machine);
/* Quiesces, or resumes, every device: before and after guest memory goes away. */
void hako_devices_quiesce(struct hako_machine *machine);
void hako_devices_resume(struct hako_machine *machine);
/* Sends an event to the manager, if there is one; descriptors are closed here either way. 0, -ENOTCONN, -EAGAIN. */
int hako_machine_event(struct hako_machine *machine, uint16_t type, const void *payload, uint32_t length,
		       const int *fds, uint32_t fd_count);
void hako_metric_add(struct hako_machine *machine, uint32_t slot, const char *name, uint64_t value);

#endif
