/**
 * The numbers of native/vmm/wire.h and state.h, under the same names without their prefix `HAKO_`. A unit test
 * compares both files; `wire-format.ts` lays the structures out.
 */

export const WIRE = {
  WIRE_VERSION: 1,
  MESSAGE_MAX: 131072,
  MESSAGE_FDS_MAX: 20,
  ERROR_TEXT_MAX: 512,
  CONTROL_FD: 3,
  REPLY: 0x8000,
  VCPUS_MAX: 64,
  SECTION_MAX: 65536,
  DEVICES_MAX: 64,
  ID_MAX: 36,
  NO_DEVICE: 0xffffffff,
} as const;

export const REQUEST = {
  HELLO: 1,
  MACHINE_CREATE: 2,
  MEMORY_ADD: 3,
  MEMORY_WRITE: 4,
  MEMORY_LOAD: 5,
  MEMORY_SAVE: 6,
  VCPU_PUT: 7,
  VCPU_GET: 8,
  MACHINE_PUT: 9,
  MACHINE_GET: 10,
  DEVICE_ADD: 11,
  DEVICE_REMOVE: 12,
  DEVICE_UPDATE: 13,
  DEVICE_GET: 14,
  DEVICE_PUT: 15,
  START: 16,
  PAUSE: 17,
  RESUME: 18,
  VCPU_LIMIT: 19,
  INTERRUPT: 20,
  METRICS: 21,
  STOP: 22,
} as const;

export type RequestName = keyof typeof REQUEST;

export const EVENT = { EVENT_EXIT: 64, EVENT_DEVICE: 65, EVENT_VSOCK: 66 } as const;

export const CREATE = { CREATE_BOOT_TIMER: 1, CREATE_I8042: 2, CREATE_SERIAL: 4 } as const;

export const MEMORY = {
  MEMORY_READ_ONLY: 1,
  MEMORY_SHARED: 2,
  MEMORY_HUGE: 4,
  MEMORY_VOLATILE: 8,
} as const;

export const VCPU_SECTION = {
  VCPU_CPUID: 1,
  VCPU_TSC_KHZ: 2,
  VCPU_MP_STATE: 3,
  VCPU_REGS: 4,
  VCPU_SREGS: 5,
  VCPU_XSAVE: 6,
  VCPU_XCRS: 7,
  VCPU_DEBUGREGS: 8,
  VCPU_LAPIC: 9,
  VCPU_MSRS: 10,
  VCPU_EVENTS: 11,
  VCPU_FPU: 12,
  VCPU_MSR_LIST: 13,
} as const;

export const MACHINE_SECTION = {
  MACHINE_PIC_MASTER: 32,
  MACHINE_PIC_SLAVE: 33,
  MACHINE_IOAPIC: 34,
  MACHINE_CLOCK: 35,
  MACHINE_SERIAL: 36,
} as const;

/** Virtio device ids (VIRTIO 1.2, 5). */
export const KIND = {
  KIND_NET: 1,
  KIND_BLOCK: 2,
  KIND_CONSOLE: 3,
  KIND_RNG: 4,
  KIND_BALLOON: 5,
  KIND_VSOCK: 19,
  KIND_MEM: 24,
  KIND_FS: 26,
  KIND_PMEM: 27,
} as const;

export const DEVICE_FLAG = {
  DEVICE_READ_ONLY: 1,
  BALLOON_DEFLATE_ON_OOM: 2,
  BALLOON_REPORTING: 4,
} as const;

export const EXIT = {
  EXIT_POWER_OFF: 1,
  EXIT_RESET: 2,
  EXIT_TRIPLE_FAULT: 3,
  EXIT_KVM_ERROR: 4,
  EXIT_MEMORY_FAULT: 5,
  EXIT_WORKER_FAULT: 6,
} as const;

export const DEVICE_EVENT = {
  DEVICE_ACTIVATED: 1,
  DEVICE_RELEASED: 2,
  DEVICE_BROKEN: 3,
  DEVICE_SIZE: 4,
} as const;

export const STATE = {
  STATE_EMPTY: 1,
  STATE_CREATED: 2,
  STATE_RUNNING: 3,
  STATE_PAUSED: 4,
  STATE_ENDED: 5,
} as const;
