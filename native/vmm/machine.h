/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one machine of this process. Its lock guards all of it. vCPU threads take it to stand still and for accesses
 * that hit a device; the event thread holds it in every handler and never while it waits for events.
 */
#ifndef HAKO_VMM_MACHINE_H
#define HAKO_VMM_MACHINE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "control.h"
#include "event.h"
#include "memory.h"
#include "state.h"
#include "wire.h"

struct kvm_run;
struct hako_arch;
struct hako_virtio;

/* Exits counted by kind, for METRICS. */
enum hako_exit_kind {
	HAKO_COUNT_IO,
	HAKO_COUNT_MMIO,
	HAKO_COUNT_UNCLAIMED,	/* of both: nothing is at the address */
	HAKO_COUNT_SIGNAL,
	HAKO_COUNT_AGAIN,
	HAKO_COUNT_OTHER,
	HAKO_COUNTS,
};

struct hako_vcpu {
	struct hako_machine *machine;
	struct kvm_run *run;
	uint32_t index;
	int fd;
	pthread_t thread;
	bool started;			/* the thread exists */
	bool standing;			/* outside of the guest, with nothing of an exit left to do */
	atomic_ullong counts[HAKO_COUNTS];	/* written by its thread alone */
};

/* Why there is no guest any more; sent as it stands. */
struct hako_end {
	struct hako_exit_event event;
	char text[HAKO_ERROR_TEXT_MAX];
};

#define HAKO_BOOT_TIMES_MAX	8

struct hako_machine {
	pthread_mutex_t lock;
	pthread_cond_t stood;		/* a vCPU has come to stand */
	pthread_cond_t go;		/* vCPUs that stand look again whether they may run */
	atomic_uint state;		/* HAKO_STATE_*; written with the lock held */
	struct hako_end end;		/* valid in HAKO_STATE_ENDED */
	struct hako_source ended;	/* eventfd: tells the event thread of the end */

	int kvm, vm, console;
	struct hako_machine_create config;
	uint32_t vcpu_limit;		/* vCPUs from here on never enter the guest */
	bool halted;			/* no vCPU may run, whatever the state: for a moment, see hako_machine_halt */
	bool complete;			/* interrupt controllers and vCPUs are there */
	struct hako_vcpu vcpus[HAKO_VCPUS_MAX];
	struct hako_memory memory;
	struct hako_loop loop;
	struct hako_control control;
	struct hako_arch *arch;

	/* Looked at without the lock by accesses to registers: the address is there before the device. */
	uint64_t device_gpa[HAKO_DEVICES_MAX];
	struct hako_virtio *_Atomic devices[HAKO_DEVICES_MAX];

	struct hako_reply *metrics;	/* where hako_metric_add writes; NULL outside of METRICS */
	struct {
		uint8_t value;
		uint64_t ns;
	} boot_times[HAKO_BOOT_TIMES_MAX];
	uint32_t boot_time_count;
	uint32_t pid;
	/* CLOCK_MONOTONIC of main, of the jail being shut, and of the first entry into the guest */
	uint64_t process_ns, served_ns, start_ns;
};

/* All zeros until hako_machine_init, or the executable would carry it. */
extern struct hako_machine hako_the_machine;

uint64_t hako_now_ns(void);

/* ---- machine.c */

int hako_machine_init(struct hako_machine *machine);
int hako_machine_create(struct hako_machine *machine, struct hako_request *request, struct hako_reply *reply);
int hako_machine_complete(struct hako_machine *machine, struct hako_reply *reply);
/* Lets every vCPU that may run start or go on. */
int hako_machine_start(struct hako_machine *machine, struct hako_reply *reply);
int hako_machine_pause(struct hako_machine *machine);
int hako_machine_resume(struct hako_machine *machine, struct hako_reply *reply);
int hako_machine_limit(struct hako_machine *machine, uint32_t count, struct hako_reply *reply);
/* Waits until no vCPU is in the guest or in an exit; hako_machine_go undoes it. The lock is let go meanwhile. */
void hako_machine_halt(struct hako_machine *machine);
void hako_machine_go(struct hako_machine *machine);
bool hako_machine_may_run(const struct hako_machine *machine, const struct hako_vcpu *vcpu);

/* The guest is gone: the first reason counts. From any thread, with the lock held. */
void hako_machine_end(struct hako_machine *machine, uint32_t reason, uint32_t vcpu, uint64_t detail,
		      const char *format, ...) __attribute__((format(printf, 5, 6)));
/* The same, because guest memory is not there any more. `host`: where, NULL if that is not known. */
void hako_machine_end_memory(struct hako_machine *machine, uint32_t vcpu, const void *host);
/* Describes such an end; takes no lock. */
void hako_end_set_memory(struct hako_end *end, const struct hako_memory *memory, uint32_t vcpu, const void *host);
/* Sends an end to the manager, if there is one; takes no lock. `wait`: until there is room. 0 or -errno. */
int hako_end_send(struct hako_machine *machine, const struct hako_end *end, bool wait);
/* Tells the manager of the end and exits; without a manager it waits for the next one. Event thread only. */
void hako_machine_finish(struct hako_machine *machine);

/* ---- vcpu.c */

/* Makes the vCPU; its thread comes with the first hako_vcpu_start. 0 or -errno. */
int hako_vcpu_create(struct hako_machine *machine, uint32_t index, size_t run_size);
int hako_vcpu_start(struct hako_vcpu *vcpu);
/* Makes its thread leave the guest and stand, unless it may run after all. */
void hako_vcpu_kick(struct hako_vcpu *vcpu);
/* Installs the signal handlers of kicks and faults; before any thread is made. */
int hako_signals_init(void);
static inline void hako_vcpu_count(struct hako_vcpu *vcpu, enum hako_exit_kind kind)
{
	atomic_store_explicit(&vcpu->counts[kind],
			      atomic_load_explicit(&vcpu->counts[kind], memory_order_relaxed) + 1,
			      memory_order_relaxed);
}

/* ---- bus.c: the devices' slots, and accesses to their registers; see also virtio/device.h */

/* An access of a vCPU to what is no memory. Takes the lock as needed. */
void hako_bus_access(struct hako_vcpu *vcpu, uint64_t gpa, void *data, uint32_t length, bool write);
int hako_device_add(struct hako_machine *machine, struct hako_request *request, struct hako_reply *reply);
int hako_device_remove(struct hako_machine *machine, struct hako_request *request, struct hako_reply *reply);
int hako_device_update(struct hako_machine *machine, struct hako_request *request, struct hako_reply *reply);
int hako_device_get(struct hako_machine *machine, struct hako_request *request, struct hako_reply *reply);
int hako_device_put(struct hako_machine *machine, struct hako_request *request, struct hako_reply *reply);
uint32_t hako_devices_count(const struct hako_machine *machine);

/* ---- metric.c */

int hako_metrics_get(struct hako_machine *machine, struct hako_reply *reply);

#endif
