/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the manager and hako-vmm say to each other. src/vmm/wire.ts holds the same numbers and layouts; a unit
 * test compares the two files.
 *
 * Descriptor 3 of hako-vmm is a listening SOCK_SEQPACKET unix socket. One manager is connected at a time; when
 * it goes away the machine goes on, and the next one to connect is its successor. One message a packet, all
 * integers little endian, structures without padding (each field is aligned by its place):
 *
 *   struct hako_header, then `length - sizeof(header)` bytes of payload; descriptors by SCM_RIGHTS.
 *
 * A request has an id above 0; its reply has the same id, `type | HAKO_REPLY`, and in `status` 0 or -errno. The
 * payload of a failed reply is text for a person (not terminated). Requests are carried out one at a time, in
 * order. An event has id 0. A message of another version, of the wrong length, or with descriptors that it does
 * not take, is answered with -EPROTO; one that does not fit the state, with -EBUSY (see state.h).
 */
#ifndef HAKO_VMM_WIRE_H
#define HAKO_VMM_WIRE_H

#include <stdint.h>

#define HAKO_WIRE_VERSION	1
#define HAKO_MESSAGE_MAX	131072
#define HAKO_MESSAGE_FDS_MAX	20
#define HAKO_ERROR_TEXT_MAX	512
#define HAKO_CONTROL_FD		3

struct hako_header {
	uint32_t length;	/* of all, this header included */
	uint16_t version;	/* HAKO_WIRE_VERSION */
	uint16_t type;
	uint32_t id;
	int32_t status;		/* 0 in requests and events */
};

#define HAKO_REPLY		0x8000

/* Requests. "before" and "after" are about START. */
#define HAKO_HELLO		1	/* -> struct hako_hello */
#define HAKO_MACHINE_CREATE	2	/* struct hako_machine_create; fds: /dev/kvm, [console output] */
#define HAKO_MEMORY_ADD		3	/* struct hako_memory_add; fds: [file] */
#define HAKO_MEMORY_WRITE	4	/* struct hako_memory_write, then the bytes */
#define HAKO_MEMORY_LOAD	5	/* struct hako_memory_load; fds: file, read into guest memory */
#define HAKO_MEMORY_SAVE	6	/* paused; struct hako_memory_save[]; fds: file, [/proc/PID/pagemap of this process,
					   makes it faster] -> struct hako_memory_saved */
#define HAKO_VCPU_PUT		7	/* before, or paused; u32 vcpu, u32 0, then sections */
#define HAKO_VCPU_GET		8	/* paused; u32 vcpu, u32 0 -> sections */
#define HAKO_MACHINE_PUT	9	/* before, or paused; sections */
#define HAKO_MACHINE_GET	10	/* paused -> sections */
#define HAKO_DEVICE_ADD		11	/* struct hako_device_add, then the kind's structure; fds: the kind's */
#define HAKO_DEVICE_REMOVE	12	/* struct hako_device_slot; -EBUSY while the guest's driver holds it */
#define HAKO_DEVICE_UPDATE	13	/* struct hako_device_slot, then the kind's update structure; fds: the kind's */
#define HAKO_DEVICE_GET		14	/* paused; struct hako_device_slot -> state bytes (format of the kind, versioned) */
#define HAKO_DEVICE_PUT		15	/* before; struct hako_device_slot, then state bytes */
#define HAKO_START		16
#define HAKO_PAUSE		17	/* replies once every vCPU stands still and no request of a device is in flight */
#define HAKO_RESUME		18
#define HAKO_VCPU_LIMIT		19	/* u32 count, u32 0: vCPUs from `count` on are parked: they never enter the guest */
#define HAKO_INTERRUPT		20	/* u32 gsi, u32 0: one edge (ACPI events) */
#define HAKO_METRICS		21	/* -> struct hako_metric[] */
#define HAKO_STOP		22	/* ends the process; the reply is its last word */

/* Events */
#define HAKO_EVENT_EXIT		64	/* struct hako_exit_event, then text; the process ends after it */
#define HAKO_EVENT_DEVICE	65	/* struct hako_device_event */
#define HAKO_EVENT_VSOCK	66	/* struct hako_vsock_event; fds: our end of a stream: the guest connects to a port */

struct hako_hello {
	uint32_t state;		/* HAKO_STATE_* of state.h */
	uint32_t vcpus;		/* 0 before MACHINE_CREATE */
	uint32_t pid;		/* of this process, in its own pid namespace */
	uint32_t devices;	/* how many there are */
};

#define HAKO_CREATE_BOOT_TIMER	1	/* port 0x3f0, one byte: the time of each write is a metric (`boot_timer_…`) */
#define HAKO_CREATE_I8042	2	/* keyboard controller's reset: an exit as HAKO_EXIT_RESET */
#define HAKO_CREATE_SERIAL	4	/* 16550 at 0x3f8, GSI 4; the second descriptor takes its output (pipe or file) */

struct hako_machine_create {
	uint32_t vcpus;		/* 1 to HAKO_VCPUS_MAX: all that there can ever be; see HAKO_VCPU_LIMIT */
	uint32_t running;	/* how many of them may run at first */
	uint32_t flags;		/* HAKO_CREATE_* */
	uint32_t power_port;	/* I/O port for ACPI sleep control (byte), 0 for none: SLP_EN is an exit as HAKO_EXIT_POWER_OFF */
	uint64_t mmio_base;	/* guest physical address from which the devices' windows lie, */
	uint64_t mmio_size;	/* and how much: no memory may overlap it */
};
#define HAKO_VCPUS_MAX		64

#define HAKO_MEMORY_READ_ONLY	1	/* for guest and devices: KVM_MEM_READONLY, PROT_READ */
#define HAKO_MEMORY_SHARED	2	/* MAP_SHARED of the file; else MAP_PRIVATE (copy on write) */
#define HAKO_MEMORY_HUGE	4	/* MADV_HUGEPAGE */
#define HAKO_MEMORY_VOLATILE	8	/* not part of MEMORY_SAVE (pmem, hotplug region not plugged) */

struct hako_memory_add {
	uint32_t slot;		/* KVM memory slot, unique; below HAKO_REGIONS_MAX */
	uint32_t flags;
	uint64_t gpa, size;	/* multiples of 4096 */
	uint64_t offset;	/* in the file; without a descriptor the memory is anonymous */
};

struct hako_memory_write {
	uint64_t gpa;
};

struct hako_memory_load {
	uint64_t gpa, offset, length;
};

struct hako_memory_save {
	uint32_t slot, reserved;
	uint64_t offset;	/* where the slot goes in the file, which is empty and has its full size: zeros stay holes */
};

struct hako_memory_saved {
	uint64_t written;	/* bytes that are not zero */
};

/* A section of KVM_PUT/GET: this, then `length` bytes, padded with zeros to a multiple of 8. Layouts: linux/kvm.h. */
struct hako_section {
	uint32_t kind, length;
};
#define HAKO_SECTION_MAX	65536

/* vCPU sections; put in the right order whatever their order in the message */
#define HAKO_VCPU_CPUID		1	/* struct kvm_cpuid_entry2[] */
#define HAKO_VCPU_TSC_KHZ	2	/* u32, u32 0 */
#define HAKO_VCPU_MP_STATE	3	/* struct kvm_mp_state, u32 0 */
#define HAKO_VCPU_REGS		4	/* struct kvm_regs */
#define HAKO_VCPU_SREGS		5	/* struct kvm_sregs */
#define HAKO_VCPU_XSAVE		6	/* struct kvm_xsave; longer with KVM_CAP_XSAVE2 */
#define HAKO_VCPU_XCRS		7	/* struct kvm_xcrs */
#define HAKO_VCPU_DEBUGREGS	8	/* struct kvm_debugregs */
#define HAKO_VCPU_LAPIC		9	/* struct kvm_lapic_state */
#define HAKO_VCPU_MSRS		10	/* struct kvm_msr_entry[] */
#define HAKO_VCPU_EVENTS	11	/* struct kvm_vcpu_events */
#define HAKO_VCPU_FPU		12	/* struct kvm_fpu */
#define HAKO_VCPU_MSR_LIST	13	/* GET only, optional in the request after the u32 pair: u32[] indices to read */

/* machine sections */
#define HAKO_MACHINE_PIC_MASTER	32	/* struct kvm_irqchip */
#define HAKO_MACHINE_PIC_SLAVE	33
#define HAKO_MACHINE_IOAPIC	34
#define HAKO_MACHINE_CLOCK	35	/* struct kvm_clock_data */
#define HAKO_MACHINE_SERIAL	36	/* registers of the 16550, versioned by its first u32 */

struct hako_device_slot {
	uint32_t slot, reserved;
};
#define HAKO_DEVICES_MAX	64

#define HAKO_ID_MAX		36

struct hako_device_add {
	uint32_t slot;		/* below HAKO_DEVICES_MAX, free */
	uint32_t kind;		/* virtio device id, HAKO_KIND_* */
	uint64_t gpa;		/* of its 4096 bytes of registers, inside the MMIO window */
	uint32_t gsi;		/* 5 to 23; may be shared */
	uint32_t queues;	/* queues, or pairs of them (net); 0: the kind's own number */
	uint32_t queue_size;	/* most entries a queue, a power of 2 from 2 to 1024; 0: the kind's own */
	uint32_t flags;		/* HAKO_DEVICE_READ_ONLY … of the kind */
	char id[HAKO_ID_MAX];	/* name for logs and metrics, terminated */
	uint32_t reserved;
};

#define HAKO_KIND_NET		1
#define HAKO_KIND_BLOCK		2
#define HAKO_KIND_CONSOLE	3
#define HAKO_KIND_RNG		4
#define HAKO_KIND_BALLOON	5
#define HAKO_KIND_VSOCK		19
#define HAKO_KIND_MEM		24
#define HAKO_KIND_FS		26
#define HAKO_KIND_PMEM		27

#define HAKO_DEVICE_READ_ONLY	1	/* block, pmem */
#define HAKO_BALLOON_DEFLATE_ON_OOM	2
#define HAKO_BALLOON_REPORTING	4	/* free page reporting */

/* A token bucket; 0 in `rate`: no limit. `burst` is what may go out at once beyond the rate. */
struct hako_rate_limit {
	uint64_t bytes_rate, bytes_burst;	/* a second; bytes */
	uint64_t operations_rate, operations_burst;
};

struct hako_block {		/* fds: file or block device. Update: the same; a new fd replaces the backing */
	uint64_t size;		/* bytes; the guest sees whole sectors of 512, the rest reads as zeros */
	char serial[20];
	uint32_t reserved;
	struct hako_rate_limit limit;
};

struct hako_net {		/* fds: one TAP fd (IFF_VNET_HDR) for each pair of queues. Update: the same, no fds */
	uint8_t mac[6];
	uint16_t mtu;		/* 0: not told */
	uint32_t reserved;
	struct hako_rate_limit receive, transmit;
};

struct hako_vsock {		/* fds: listening unix stream socket, on which hosts say "CONNECT <port>\n" */
	uint64_t cid;
};

struct hako_pmem {		/* fds: file. The memory slot is made and removed with the device */
	uint64_t gpa, size, offset;	/* multiples of 2 MiB, 2 MiB, 4096; what lies beyond the file's end reads as zeros */
	uint32_t memory_slot, reserved;
};

struct hako_console {		/* fds: output, [input] */
	uint32_t columns, rows;	/* 0: not told. Update: a new size */
};

struct hako_balloon {		/* Update: the same */
	uint64_t target;	/* bytes that the guest shall give back */
};

struct hako_mem {		/* Update: `requested` alone counts */
	uint64_t gpa, size;	/* the region; its memory slot is made with the device */
	uint64_t block_size;	/* bytes, a power of 2, 2 MiB or more */
	uint64_t requested;	/* bytes, a multiple of the block size */
	uint32_t memory_slot, reserved;
};

struct hako_exit_event {
	uint32_t reason;	/* HAKO_EXIT_* */
	uint32_t vcpu;
	uint64_t detail;	/* KVM's reason, suberror or errno */
};
#define HAKO_EXIT_POWER_OFF	1	/* by ACPI */
#define HAKO_EXIT_RESET		2	/* by the keyboard controller or port 0xcf9 */
#define HAKO_EXIT_TRIPLE_FAULT	3	/* KVM_EXIT_SHUTDOWN */
#define HAKO_EXIT_KVM_ERROR	4	/* KVM_RUN failed, internal error, failed entry */
#define HAKO_EXIT_MEMORY_FAULT	5	/* SIGBUS or EFAULT: a file behind guest memory became shorter, or no memory is left */
#define HAKO_EXIT_WORKER_FAULT	6	/* hako-vmm itself cannot go on */

struct hako_device_event {
	uint32_t slot, what;	/* HAKO_DEVICE_* */
	uint64_t value;
};
#define HAKO_DEVICE_ACTIVATED	1	/* the driver has set DRIVER_OK */
#define HAKO_DEVICE_RELEASED	2	/* the driver has reset it */
#define HAKO_DEVICE_BROKEN	3	/* the guest broke the rules: NEEDS_RESET; value: errno */
#define HAKO_DEVICE_SIZE	4	/* balloon: actual bytes; mem: plugged bytes */

struct hako_vsock_event {
	uint32_t slot, port;
};

/* One number: which device (or HAKO_NO_DEVICE), a name, a value. */
struct hako_metric {
	char name[32];
	uint32_t slot, reserved;
	uint64_t value;
};
#define HAKO_NO_DEVICE		0xffffffff

#endif
