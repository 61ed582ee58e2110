import { HakoError } from "#base/error.ts";
import type { DeviceSpec, Machine, MachineExit, MachineState } from "#hypervisor/hypervisor.ts";

/** A machine without a monitor: it takes devices and forgets them, and fails when told to. */
export class MemoryMachine implements Machine {
  readonly state: MachineState = { driver: "memory", id: "memory", runDir: "/nonexistent", processes: [] };
  readonly exited: Promise<MachineExit>;
  readonly devices = new Map<string, DeviceSpec>();
  /** Thrown by the next attach or detach. */
  nextFailure: HakoError | undefined;
  readonly #exit = Promise.withResolvers<MachineExit>();

  constructor() {
    this.exited = this.#exit.promise;
  }

  async start(): Promise<void> {}
  async pause(): Promise<void> {}
  async resume(): Promise<void> {}

  async attach(device: DeviceSpec): Promise<void> {
    await this.#step();
    this.devices.set(device.id, device);
  }

  async detach(id: string): Promise<void> {
    await this.#step();
    if (!this.devices.delete(id)) throw new HakoError("NOT_FOUND", `No device "${id}"`);
  }

  async resizeVcpus(count: number): Promise<number> {
    return count;
  }

  async resizeMemory(memoryMib: number): Promise<number> {
    return memoryMib;
  }

  async save(): Promise<void> {
    throw new HakoError("UNIMPLEMENTED", "A machine without a monitor is not saved");
  }

  async stop(): Promise<void> {
    this.#exit.resolve({ reason: "stopped", detail: "Stopped", consoleTail: "" });
  }

  consoleTail(): string {
    return "";
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  async #step(): Promise<void> {
    await Bun.sleep(0);
    const failure = this.nextFailure;
    this.nextFailure = undefined;
    if (failure) throw failure;
  }
}
