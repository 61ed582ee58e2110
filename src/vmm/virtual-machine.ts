import { HakoError } from "#base/error.ts";
import { abortable } from "#base/mutex.ts";
import type { Fd } from "#sys/fd.ts";
import { ControlClient } from "./control.ts";
import type { DeviceRequest } from "./device.ts";
import type { MachinePlan } from "./machine-plan.ts";
import type { Snapshot } from "./snapshot/load.ts";
import type { MachineRecord, Manifest } from "./snapshot/machine-record.ts";
import { dataExtents } from "./snapshot/memory-file.ts";
import { DEVICE_EVENT } from "./wire.ts";
import {
  type DeviceEvent,
  decodeHello,
  decodeMetrics,
  type ExitEvent,
  encodeIndex,
  encodeMachineCreate,
  encodeMemoryAdd,
  encodeMemoryLoad,
  encodeMemoryWrite,
  encodeSections,
  type Hello,
  MEMORY_WRITE_MAX,
  type MemoryLoad,
  type Metric,
} from "./wire-format.ts";

/** What is known of a device from its events. */
interface DeviceStatus {
  /** The guest's driver holds it. */
  active: boolean;
  /** Balloon: bytes given back; mem: bytes plugged. */
  size: bigint;
  /** errno of the rule that the guest broke. */
  broken?: bigint;
}

/** What a restored machine is made of. */
export interface RestoreRequest {
  readonly snapshot: Snapshot;
  /** Its devices with the new descriptors, by slot. */
  readonly devices: ReadonlyMap<number, DeviceRequest>;
  readonly copy: boolean;
  /** By which the guest knows that it is another one now; `id`: 16 bytes. */
  readonly generation: { readonly gsi: number; readonly address: bigint; readonly id: Uint8Array };
}

/** One machine in one hako-vmm, seen from the manager: its requests by name, and what became of its devices. */
export class VirtualMachine implements Disposable {
  readonly #control: ControlClient;
  readonly #devices = new Map<number, DeviceStatus>();
  readonly #watchers = new Set<() => void>();
  #exit: ExitEvent | undefined;
  #onVsock: ((port: number, stream: Fd) => void) | undefined;

  /** Takes over a connection to hako-vmm's control socket. */
  constructor(socket: Fd) {
    this.#control = new ControlClient(socket, {
      exit: (event) => {
        this.#exit = event;
      },
      device: (event) => this.#observe(event),
      vsock: ({ port }, stream) => (this.#onVsock ? this.#onVsock(port, stream) : stream.close()),
    });
  }

  /** Resolves when the connection has ended; {@link exit} is known by then. */
  get closed(): Promise<void> {
    return this.#control.closed;
  }

  /** Why the guest ended, if it did. */
  get exit(): ExitEvent | undefined {
    return this.#exit;
  }

  /** Streams that the guest opens to ports of the host; without a listener they are closed. */
  onVsock(listener: (port: number, stream: Fd) => void): void {
    this.#onVsock = listener;
  }

  async hello(signal?: AbortSignal): Promise<Hello> {
    return decodeHello(await this.#control.request("HELLO", undefined, { signal }));
  }

  /**
   * Makes the machine of a plan, not yet running. `kvmFd`: an open /dev/kvm; `consoleFd`: takes the serial port's
   * output; both stay the caller's. All requests are sent at once, memory before registers: the first request about a vCPU
   * brings the interrupt controllers, and memory that comes after them waits for KVM's grace periods.
   */
  async create(plan: MachinePlan, kvmFd: number, consoleFd: number, signal?: AbortSignal): Promise<void> {
    const control = this.#control;
    const send: ControlClient["request"] = (name, payload, options) =>
      control.request(name, payload, { ...options, signal });
    const answers = [
      send("MACHINE_CREATE", encodeMachineCreate(plan.create), { fds: [kvmFd, consoleFd] }),
      ...plan.memory.map((memory) => send("MEMORY_ADD", encodeMemoryAdd(memory))),
      ...plan.loads.map(({ fd, load }) => send("MEMORY_LOAD", encodeMemoryLoad(load), { fds: [fd] })),
      ...plan.writes.flatMap(({ gpa, bytes }) =>
        slices(bytes).map(({ offset, part }) =>
          send("MEMORY_WRITE", encodeMemoryWrite(gpa + BigInt(offset), part)),
        ),
      ),
      ...plan.devices.map(({ payload, fds }) => send("DEVICE_ADD", payload, { fds })),
      ...plan.vcpus.map((sections, index) =>
        send("VCPU_PUT", Buffer.concat([encodeIndex(index), encodeSections(sections)])),
      ),
    ];
    await firstFailure(answers);
  }

  /**
   * Makes the machine of a snapshot, not yet running. `requests`: its devices, by slot. `copy`: memory is read in at once
   * instead of being mapped copy-on-write. `kvmFd` and `consoleFd` as for {@link create}.
   */
  async restore(
    request: RestoreRequest,
    kvmFd: number,
    consoleFd: number,
    signal?: AbortSignal,
  ): Promise<void> {
    const { snapshot, devices, copy, generation } = request;
    const { machine, progress } = snapshot.manifest;
    const control = this.#control;
    const send: ControlClient["request"] = (name, payload, options) =>
      control.request(name, payload, { ...options, signal });
    const file = snapshot.memory.number;
    const pieces = memoryPieces(machine, progress);
    const mapped = (slot: number) => !copy && machine.memory.some((memory) => memory.slot === slot);
    await firstFailure([
      send("MACHINE_CREATE", encodeMachineCreate(machine.create), { fds: [kvmFd, consoleFd] }),
      ...machine.memory.map((memory) => {
        const offset = pieces.find(({ slot }) => slot === memory.slot)?.offset ?? 0n;
        return copy
          ? send("MEMORY_ADD", encodeMemoryAdd(memory))
          : send("MEMORY_ADD", encodeMemoryAdd({ ...memory, offset }), { fds: [file] });
      }),
      ...[...devices.values()].map(({ payload, fds }) => send("DEVICE_ADD", payload, { fds })),
      ...[...snapshot.devices].map(([slot, state]) =>
        send("DEVICE_PUT", Buffer.concat([encodeIndex(slot), state])),
      ),
      ...pieces
        .filter(({ slot }) => !mapped(slot))
        .flatMap((piece) => fileLoads(file, piece))
        .map((load) => send("MEMORY_LOAD", encodeMemoryLoad(load), { fds: [file] })),
      send("MACHINE_PUT", encodeSections(snapshot.machine)),
      ...snapshot.vcpus.map((sections, index) =>
        send("VCPU_PUT", Buffer.concat([encodeIndex(index), encodeSections(sections)])),
      ),
      send("MEMORY_WRITE", encodeMemoryWrite(generation.address, generation.id)),
      send("INTERRUPT", encodeIndex(generation.gsi)),
    ]);
    for (const [slot, status] of Object.entries(progress)) this.#devices.set(Number(slot), { ...status });
  }

  async start(signal?: AbortSignal): Promise<void> {
    await this.#control.request("START", undefined, { signal });
  }

  /** Resolves once every vCPU stands still and no request of a device is in flight. */
  async pause(signal?: AbortSignal): Promise<void> {
    await this.#control.request("PAUSE", undefined, { signal });
  }

  async resume(signal?: AbortSignal): Promise<void> {
    await this.#control.request("RESUME", undefined, { signal });
  }

  /** The connection's own end counts as success. */
  async stop(signal?: AbortSignal): Promise<void> {
    await this.#control.request("STOP", undefined, { signal });
  }

  async addDevice({ payload, fds }: DeviceRequest): Promise<void> {
    await this.#control.request("DEVICE_ADD", payload, { fds });
  }

  /** FAILED_PRECONDITION (EBUSY) while the guest's driver holds it. */
  async removeDevice(slot: number): Promise<void> {
    await this.#control.request("DEVICE_REMOVE", encodeIndex(slot));
    this.#devices.delete(slot);
  }

  async updateDevice(slot: number, update: Uint8Array, fds: readonly number[] = []): Promise<void> {
    await this.#control.request("DEVICE_UPDATE", Buffer.concat([encodeIndex(slot), update]), { fds });
  }

  /** vCPUs from `count` on never enter the guest. */
  async limitVcpus(count: number): Promise<void> {
    await this.#control.request("VCPU_LIMIT", encodeIndex(count));
  }

  /** One edge on an interrupt line. */
  async interrupt(gsi: number): Promise<void> {
    await this.#control.request("INTERRUPT", encodeIndex(gsi));
  }

  async writeMemory(gpa: bigint, bytes: Uint8Array): Promise<void> {
    await this.#control.request("MEMORY_WRITE", encodeMemoryWrite(gpa, bytes));
  }

  async metrics(): Promise<Metric[]> {
    return decodeMetrics(await this.#control.request("METRICS"));
  }

  /** Sends any request; for what has no method of its own (saving and restoring). */
  request: ControlClient["request"] = (name, payload, options) =>
    this.#control.request(name, payload, options);

  isActive(slot: number): boolean {
    return this.#devices.get(slot)?.active ?? false;
  }

  /** Bytes that a balloon has taken or a memory device has plugged. */
  sizeOf(slot: number): bigint {
    return this.#devices.get(slot)?.size ?? 0n;
  }

  /** Resolves when a condition on the devices holds; looked at with every event. UNAVAILABLE when the machine ends. */
  async until(condition: () => boolean, signal?: AbortSignal): Promise<void> {
    if (condition()) return;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const watcher = () => {
      if (condition()) resolve();
    };
    this.#watchers.add(watcher);
    void this.closed.then(() => reject(new HakoError("UNAVAILABLE", "The machine has ended")));
    try {
      await abortable(promise, signal);
    } finally {
      this.#watchers.delete(watcher);
    }
  }

  close(): void {
    this.#control.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #observe({ slot, what, value }: DeviceEvent): void {
    const status = this.#devices.get(slot) ?? { active: false, size: 0n };
    this.#devices.set(slot, status);
    if (what === DEVICE_EVENT.DEVICE_ACTIVATED) status.active = true;
    if (what === DEVICE_EVENT.DEVICE_RELEASED) status.active = false;
    if (what === DEVICE_EVENT.DEVICE_SIZE) status.size = value;
    if (what === DEVICE_EVENT.DEVICE_BROKEN) status.broken = value;
    for (const watcher of [...this.#watchers]) watcher();
  }
}

/** A restored machine's memory and what is plugged into memory devices, and where each lies in the snapshot's file. */
function memoryPieces({ memory, devices }: MachineRecord, progress: Manifest["progress"]) {
  const plugged = devices.flatMap(({ slot, kind, memory: own }) =>
    kind === "mem" && own && (progress[slot]?.size ?? 0n) > 0n
      ? [{ slot: own.slot, gpa: own.start, size: own.size }]
      : [],
  );
  let offset = 0n;
  return [...memory, ...plugged].map(({ slot, gpa, size }) => {
    const piece = { slot, gpa, size, offset };
    offset += size;
    return piece;
  });
}

/** The parts of a piece that are not holes in the file. */
function fileLoads(
  fd: number,
  { gpa, size, offset }: { readonly gpa: bigint; readonly size: bigint; readonly offset: bigint },
): MemoryLoad[] {
  return [...dataExtents(fd, Number(offset + size))]
    .map(({ start, end }) => ({ start: start < offset ? offset : BigInt(start), end: BigInt(end) }))
    .filter(({ start, end }) => end > start)
    .map(({ start, end }) => ({ gpa: gpa + start - offset, offset: start, length: end - start }));
}

/** Parts of at most the size of one message. */
function slices(bytes: Uint8Array): { offset: number; part: Uint8Array }[] {
  const count = Math.ceil(bytes.length / MEMORY_WRITE_MAX);
  return Array.from({ length: count }, (_, index) => {
    const offset = index * MEMORY_WRITE_MAX;
    return { offset, part: bytes.subarray(offset, offset + MEMORY_WRITE_MAX) };
  });
}

/** Waits for all; throws what failed first, in the order of the requests: the others fail because of it. */
async function firstFailure(answers: readonly Promise<unknown>[]): Promise<void> {
  const outcomes = await Promise.allSettled(answers);
  for (const outcome of outcomes) if (outcome.status === "rejected") throw outcome.reason;
}
