import { HakoError } from "#base/error.ts";
import { Mutex } from "#base/mutex.ts";
import type { DeviceSpec, Machine } from "#hypervisor/hypervisor.ts";
import { validateDevice } from "#hypervisor/machine-spec.ts";
import { logger } from "#telemetry/log.ts";
import type {
  Device,
  DeviceOwner,
  DeviceState,
  DeviceStatus,
  DiskRequest,
  NetworkRequest,
  ShareRequest,
} from "./device.ts";

interface Entry {
  readonly id: string;
  readonly spec: DeviceSpec;
  readonly owner: DeviceOwner | undefined;
  status: DeviceStatus;
}

const log = logger("device");

/**
 * The one owner of all devices of a sandbox. Devices added before {@link bind} are planned and become part of the
 * machine's spec; later ones are plugged into the running machine. Disposing releases all, the last added first;
 * the machine must have ended by then.
 */
export class DeviceManager implements AsyncDisposable {
  readonly #entries: Entry[] = [];
  readonly #mutex = new Mutex();
  #machine: Machine | undefined;
  #disposed = false;
  #disks = 0;
  #networks = 0;
  #shares = 0;

  /**
   * Adds a disk. Throws INVALID_ARGUMENT, ALREADY_EXISTS for a serial in use, and whatever `Machine.attach` throws;
   * the request's owner has been disposed of then.
   */
  addDisk(request: DiskRequest, signal?: AbortSignal): Promise<Device> {
    const { id = `disk${this.#disks++}`, serial, fd, readOnly, inPlace = false, owner } = request;
    return this.#add({ kind: "block", id, serial, fd, readOnly, ...(inPlace && { inPlace }) }, owner, signal);
  }

  /** Adds a network device; throws as {@link addDisk} does. */
  addNetwork(request: NetworkRequest, signal?: AbortSignal): Promise<Device> {
    const { owner, ...rest } = request;
    return this.#add({ kind: "network", id: `net${this.#networks++}`, ...rest }, owner, signal);
  }

  /** Adds a shared directory; throws as {@link addDisk} does. */
  addShare(request: ShareRequest, signal?: AbortSignal): Promise<Device> {
    const { owner, ...rest } = request;
    return this.#add({ kind: "share", id: `share${this.#shares++}`, ...rest }, owner, signal);
  }

  /** For `MachineSpec.devices`. */
  get specs(): DeviceSpec[] {
    return this.#entries.map(({ spec }) => spec);
  }

  /** For the sandbox's state on disk. */
  get states(): DeviceState[] {
    return this.#entries.map(({ id, spec, status }) => ({
      id,
      kind: spec.kind,
      status,
      name: deviceName(spec),
    }));
  }

  find(id: string): Device | undefined {
    return this.#entries.find((entry) => entry.id === id);
  }

  /** The machine has been made from {@link specs}: its devices are attached, and more can be plugged in. */
  bind(machine: Machine): void {
    if (this.#machine) throw new HakoError("FAILED_PRECONDITION", "Cannot bind devices: they have a machine");
    this.#machine = machine;
    for (const entry of this.#entries) entry.status = "attached";
  }

  /** Takes over a machine that has these devices already; their host's ends stay with the monitor. */
  adopt(machine: Machine, specs: readonly DeviceSpec[]): void {
    this.bind(machine);
    for (const spec of specs) {
      this.#entries.push({ id: spec.id, spec, owner: undefined, status: "attached" });
      const [, kind, number = "0"] = /^(disk|net)(\d+)$/.exec(spec.id) ?? [];
      if (kind === "disk") this.#disks = Math.max(this.#disks, Number(number) + 1);
      if (kind === "net") this.#networks = Math.max(this.#networks, Number(number) + 1);
    }
  }

  /**
   * The same for a machine that was restored with the devices `present`: all others that were added are plugged in.
   * Throws what `Machine.attach` throws; the sandbox cannot go on then.
   */
  async bindRestored(machine: Machine, present: ReadonlySet<string>, signal?: AbortSignal): Promise<void> {
    using _ = await this.#mutex.lock(signal);
    if (this.#machine) throw new HakoError("FAILED_PRECONDITION", "Cannot bind devices: they have a machine");
    this.#machine = machine;
    for (const entry of this.#entries) if (present.has(entry.id)) entry.status = "attached";
    for (const entry of [...this.#entries]) {
      if (entry.status === "planned") await this.#attach(entry, machine, signal);
    }
  }

  /**
   * Takes a device from the machine and releases it. NOT_FOUND for an unknown id, otherwise as `Machine.detach`:
   * a device that the guest does not let go of stays `detaching`, and remove may be called again.
   */
  async remove(id: string, signal?: AbortSignal): Promise<void> {
    using _ = await this.#mutex.lock(signal);
    const entry = this.#entries.find((candidate) => candidate.id === id);
    if (!entry) throw new HakoError("NOT_FOUND", `Cannot remove device "${id}": there is none`);
    if (this.#machine) {
      entry.status = "detaching";
      await this.#machine.detach(id, signal);
    }
    await this.#release(entry);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#disposed = true;
    using _ = await this.#mutex.lock();
    for (const entry of [...this.#entries].reverse()) {
      try {
        await this.#release(entry);
      } catch (error) {
        // One device that cannot be given back must not keep the others.
        log.error("cannot release a device", { id: entry.id, error });
      }
    }
  }

  async #add(spec: DeviceSpec, owner: DeviceOwner | undefined, signal?: AbortSignal): Promise<Device> {
    const entry: Entry = { id: spec.id, spec, owner, status: "planned" };
    try {
      using _ = await this.#mutex.lock(signal);
      if (this.#disposed) throw new HakoError("UNAVAILABLE", "Cannot add a device: the sandbox is ending");
      validateDevice(spec, this.specs);
      this.#entries.push(entry);
      if (this.#machine) await this.#attach(entry, this.#machine, signal);
      return entry;
    } catch (error) {
      await this.#release(entry);
      throw error;
    }
  }

  async #attach(entry: Entry, machine: Machine, signal?: AbortSignal): Promise<void> {
    entry.status = "attaching";
    await machine.attach(entry.spec, signal);
    entry.status = "attached";
  }

  /** Forgets a device and gives back what it used, once. */
  async #release(entry: Entry): Promise<void> {
    if (entry.status === "released") return;
    entry.status = "released";
    const index = this.#entries.indexOf(entry);
    if (index >= 0) this.#entries.splice(index, 1);
    const { owner } = entry;
    if (owner === undefined) return;
    if (Symbol.asyncDispose in owner) await owner[Symbol.asyncDispose]();
    else owner[Symbol.dispose]();
  }
}

function deviceName(spec: DeviceSpec): string {
  if (spec.kind === "block") return spec.serial;
  return spec.kind === "network" ? spec.macAddress : spec.tag;
}
