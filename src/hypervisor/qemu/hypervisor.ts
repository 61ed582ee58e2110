import { HakoError } from "#base/error.ts";
import { ConsoleLog } from "#hypervisor/console-log.ts";
import type {
  AdoptedMachine,
  AdoptSpec,
  Capability,
  Hypervisor,
  HypervisorProbe,
  Machine,
  MachineSpec,
  MachineState,
  RestoreSpec,
} from "#hypervisor/hypervisor.ts";
import { validateMachineSpec } from "#hypervisor/machine-spec.ts";
import { readConsole } from "#linux/console-pipe.ts";
import { probeKvm } from "#linux/kvm-kind.ts";
import { tscFrequencyKhz } from "#sys/tsc.ts";
import { logger } from "#telemetry/log.ts";
import { findBinary, readVersion } from "./binary.ts";
import { type Channels, openChannels } from "./channels.ts";
import { buildCommandLine, extraMemoryMib, type LaunchSettings } from "./command-line.ts";
import { Inventory } from "./inventory.ts";
import { cleanUpLeftovers } from "./leftover.ts";
import { QemuMachine } from "./machine.ts";
import { describeProcessExit } from "./machine-exit.ts";
import { type Accelerator, chooseMachineType, type MachineType } from "./machine-type.ts";
import { QemuProcess } from "./process.ts";
import { type QemuVersion, QmpClient } from "./qmp.ts";
import { openVhostNet } from "./vhost-net.ts";

export interface QemuOptions {
  /** Absolute path of QEMU's system emulator; searched for when absent. */
  readonly binary?: string;
  /** `auto`: KVM where it can run an ordinary guest, else TCG. */
  readonly accelerator?: "auto" | Accelerator;
  /** False leaves out QEMU's own seccomp filter, for a QEMU that was built without it. */
  readonly seccomp?: boolean;
}

/** `-netdev` and `-device` as JSON and an ACPI power-off on microvm came by then. */
const OLDEST_MAJOR_VERSION = 7;

/** Machines of QEMU, one process each, launched directly and controlled over QMP. */
export class QemuHypervisor implements Hypervisor {
  readonly name = "qemu";
  readonly #options: QemuOptions;
  readonly #log = logger("qemu");

  constructor(options: QemuOptions = {}) {
    this.#options = options;
  }

  capabilities(spec: Pick<MachineSpec, "machineType">): ReadonlySet<Capability> {
    return chooseMachineType(spec.machineType, this.#accelerator(), 0).capabilities;
  }

  plannedState(spec: Pick<MachineSpec, "id" | "runDir">): MachineState {
    return { driver: this.name, id: spec.id, runDir: spec.runDir, processes: [] };
  }

  async probe(options = { version: false }): Promise<HypervisorProbe> {
    const problems: string[] = [];
    const note = (error: unknown) => {
      problems.push(HakoError.from(error).fullMessage);
      return undefined;
    };
    let accelerator: Accelerator | undefined;
    try {
      accelerator = this.#accelerator();
    } catch (error) {
      note(error);
    }
    const binary = await findBinary(this.#options.binary).catch(note);
    const version = binary && options.version ? await readVersion(binary).catch(note) : undefined;
    return {
      usable: problems.length === 0,
      accelerator: accelerator ?? "none",
      ...(version === undefined ? {} : { version }),
      problems,
    };
  }

  async create(spec: MachineSpec, signal?: AbortSignal): Promise<Machine> {
    const action = `Cannot create machine "${spec.id}"`;
    try {
      return await this.#create(spec, signal);
    } catch (error) {
      if (signal?.aborted) throw new HakoError("CANCELLED", `${action}: cancelled`, { cause: signal.reason });
      throw new HakoError(HakoError.from(error).code, action, { cause: error });
    }
  }

  async restore(spec: RestoreSpec): Promise<Machine> {
    throw new HakoError("UNIMPLEMENTED", `Cannot restore machine "${spec.id}": QEMU machines are not saved`);
  }

  async adopt(spec: AdoptSpec, signal?: AbortSignal): Promise<AdoptedMachine> {
    const action = `Cannot adopt machine "${spec.state.id}"`;
    try {
      const { adoptMachine } = await import("./adopt.ts");
      const type = chooseMachineType(spec.machineType, this.#accelerator(), 0);
      return await adoptMachine(this.name, type, spec, signal);
    } catch (error) {
      throw new HakoError(HakoError.from(error).code, action, { cause: error });
    }
  }

  cleanUp(state: MachineState): Promise<void> {
    return cleanUpLeftovers(state);
  }

  async #create(spec: MachineSpec, signal?: AbortSignal): Promise<Machine> {
    signal?.throwIfAborted();
    validateMachineSpec(spec);
    const accelerator = this.#accelerator();
    const type = chooseMachineType(spec.machineType, accelerator, spec.devices.length);
    checkBounds(spec, type);
    const inventory = new Inventory(type);
    for (const device of spec.devices) inventory.add(device);
    const [binary, settings] = await Promise.all([
      findBinary(this.#options.binary),
      this.#launchSettings(accelerator),
    ]);
    return this.#launch({ binary, spec, type, inventory, settings }, signal);
  }

  async #launch(plan: LaunchPlan, signal?: AbortSignal): Promise<Machine> {
    const { spec, type, inventory } = plan;
    await using undo = new AsyncDisposableStack();
    const channels = undo.use(await openChannels(spec.runDir, signal));
    const console = new ConsoleLog();
    const consoleStop = new AbortController();
    const consoleEnded = readConsole(
      channels.consoleReader,
      (bytes) => console.append(bytes),
      consoleStop.signal,
    );
    undo.defer(() => consoleStop.abort());
    const qmp = undo.adopt(new QmpClient(channels.control), (client) => client.close());
    const process = undo.adopt(startProcess(plan, channels), async (started) => {
      started.kill();
      await started.exited;
    });
    channels.closeMonitorEnds();
    await this.#handshake(process, qmp, signal);
    undo.move();
    return new QemuMachine({
      driver: this.name,
      spec,
      type,
      process,
      qmp,
      inventory,
      console,
      consoleEnded,
      closeConsole: () => consoleStop.abort(),
    });
  }

  /** Waits until QEMU answers; when it ends instead, its own words say why. */
  async #handshake(process: QemuProcess, qmp: QmpClient, signal?: AbortSignal): Promise<void> {
    try {
      const version = await qmp.negotiate(signal);
      checkVersion(version);
      this.#log.debug("started", { pid: process.state.pid, version });
    } catch (error) {
      if (HakoError.from(error).code !== "UNAVAILABLE") throw error;
      process.kill();
      const exit = await process.exited;
      const code = exit.signal === null ? "FAILED_PRECONDITION" : "UNAVAILABLE";
      throw new HakoError(code, describeProcessExit(exit, await process.messages()));
    }
  }

  async #launchSettings(accelerator: Accelerator): Promise<LaunchSettings> {
    const seccomp = this.#options.seccomp ?? true;
    if (accelerator === "kvm") return { accelerator, seccomp };
    return { accelerator, seccomp, tscKhz: await tscFrequencyKhz() };
  }

  #accelerator(): Accelerator {
    const wanted = this.#options.accelerator ?? "auto";
    if (wanted === "tcg") return "tcg";
    const { kind, detail } = probeKvm();
    if (kind === "hardware") return "kvm";
    if (kind === "forbidden") throw new HakoError("PERMISSION_DENIED", `Cannot use KVM: ${detail}`);
    if (wanted === "kvm") throw new HakoError("FAILED_PRECONDITION", `Cannot use KVM: ${detail}`);
    return "tcg";
  }
}

interface LaunchPlan {
  readonly binary: string;
  readonly spec: MachineSpec;
  readonly type: MachineType;
  readonly inventory: Inventory;
  readonly settings: LaunchSettings;
}

function startProcess(plan: LaunchPlan, channels: Channels): QemuProcess {
  const { binary, spec, type, inventory, settings } = plan;
  const queues = spec.devices.flatMap((device) => (device.kind === "network" ? device.tapFds : [])).length;
  using vhostNet = openVhostNet(queues);
  const { args, fds } = buildCommandLine(spec, type, settings, inventory.devices, {
    controlListenerFd: channels.controlListener.number,
    consoleFd: channels.consoleWriter.number,
    vhostNetFds: vhostNet.fds,
  });
  return new QemuProcess(binary, args, fds, spec.runDir);
}

/** What the machine type cannot do is refused before anything starts. */
function checkBounds(spec: MachineSpec, type: MachineType): void {
  const refuse = (what: string) => {
    throw new HakoError(
      "UNIMPLEMENTED",
      `Cannot change ${what} later: machine type "${type.name}" cannot do that`,
    );
  };
  if ((spec.maxVcpus ?? spec.vcpus) > spec.vcpus && !type.capabilities.has("vcpu-hotplug")) refuse("vCPUs");
  if (extraMemoryMib(spec) > 0 && !type.capabilities.has("memory-hotplug")) refuse("memory");
}

function checkVersion(version: QemuVersion): void {
  if (version.major >= OLDEST_MAJOR_VERSION) return;
  const text = `${version.major}.${version.minor}.${version.micro}`;
  throw new HakoError(
    "FAILED_PRECONDITION",
    `Cannot use QEMU ${text}: hako needs version ${OLDEST_MAJOR_VERSION} or later`,
  );
}
