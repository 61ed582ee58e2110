import { HakoError } from "#base/error.ts";
import { ConsoleLog } from "#hypervisor/console-log.ts";
import type {
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
import { O, openFd } from "#sys/fd.ts";
import { type Discovery, hostArchitecture } from "#vmm/architecture.ts";
import { GuestHotplug } from "#vmm/guest-hotplug.ts";
import { type MachinePlan, planMachine } from "#vmm/machine-plan.ts";
import { VirtualMachine } from "#vmm/virtual-machine.ts";
import { WIRE } from "#vmm/wire.ts";
import { describeEnd, Worker } from "#vmm/worker.ts";
import { makeMachineCgroup, removeMachineCgroup } from "./cgroup.ts";
import { openChannels, removeChannelFiles } from "./channels.ts";
import { Inventory } from "./inventory.ts";
import { cleanUpLeftovers, RUN_DIR_VARIABLE } from "./leftover.ts";
import { BuiltinMachine } from "./machine.ts";
import { nextUserId } from "./user-id.ts";
import { MAX_DEVICES, toVmSpec, type VmRequest } from "./vm-spec.ts";

export interface BuiltinOptions {
  /** How guests learn of their devices; `acpi` by default. */
  readonly discovery?: Discovery;
  /** Keeps what KVM says of the processor between starts. */
  readonly cacheDir?: string;
  /** True takes any /dev/kvm, also one that cannot run an ordinary kernel; for guests that are none. */
  readonly anyKvm?: boolean;
  /** The guest's sign of life becomes a metric. */
  readonly bootTimer?: boolean;
}

const KVM_DEVICE = "/dev/kvm";

const capabilities: ReadonlySet<Capability> = new Set([
  "block-hotplug",
  "network-hotplug",
  "vcpu-hotplug",
  "memory-hotplug",
  "pause",
  "balloon",
  "hybrid-vsock",
]);

/** Machines of hako's own monitor: one hako-vmm process each, told what to do over its control socket. */
export class BuiltinHypervisor implements Hypervisor {
  readonly name = "builtin";
  readonly #options: BuiltinOptions;

  constructor(options: BuiltinOptions = {}) {
    this.#options = options;
  }

  capabilities({ machineType }: Pick<MachineSpec, "machineType">): ReadonlySet<Capability> {
    if (machineType === undefined || machineType === "") return capabilities;
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Cannot use machine type "${machineType}" with the built-in monitor: it has one alone, without a name`,
    );
  }

  plannedState(spec: Pick<MachineSpec, "id" | "runDir">): MachineState {
    return { driver: this.name, id: spec.id, runDir: spec.runDir, processes: [] };
  }

  async probe(): Promise<HypervisorProbe> {
    const problem = this.#findProblem();
    if (problem !== undefined) return { usable: false, accelerator: "none", problems: [problem] };
    return { usable: true, accelerator: "kvm", version: "the built-in monitor", problems: [] };
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
    throw new HakoError("UNIMPLEMENTED", `Cannot restore machine "${spec.id}": not yet`);
  }

  cleanUp(state: MachineState): Promise<void> {
    return cleanUpLeftovers(state);
  }

  #findProblem(): string | undefined {
    const { kind, detail } = probeKvm();
    if (kind === "hardware" || (kind === "pvm" && this.#options.anyKvm)) return undefined;
    return detail;
  }

  async #create(wanted: MachineSpec, signal?: AbortSignal): Promise<Machine> {
    signal?.throwIfAborted();
    this.capabilities(wanted);
    validateMachineSpec(wanted);
    checkBounds(wanted);
    // A host may have more processors than a machine can grow to.
    const maxVcpus = Math.min(wanted.maxVcpus ?? wanted.vcpus, WIRE.VCPUS_MAX);
    const spec = { ...wanted, maxVcpus };
    const problem = this.#findProblem();
    if (problem !== undefined) throw new HakoError("FAILED_PRECONDITION", `Cannot use KVM: ${problem}`);
    const architecture = await hostArchitecture();
    using kvm = openFd(KVM_DEVICE, O.RDWR);
    const { discovery = "acpi", bootTimer = false, cacheDir } = this.#options;
    const request = toVmSpec(spec, discovery, bootTimer);
    const plan = planMachine(request.spec, architecture, architecture.readHostCpu(kvm.number, cacheDir));
    return await this.#launch(spec, request, plan, kvm.number, signal);
  }

  async #launch(
    spec: MachineSpec,
    request: VmRequest,
    plan: MachinePlan,
    kvmFd: number,
    signal?: AbortSignal,
  ): Promise<Machine> {
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
    const vm = undo.use(new VirtualMachine(channels.control));
    const cgroup = makeMachineCgroup(spec.id, plan.create.vcpus);
    undo.defer(() => removeMachineCgroup(spec.id));
    const worker = undo.adopt(
      new Worker({
        controlListener: channels.controlListener.number,
        userId: nextUserId(),
        environment: [`${RUN_DIR_VARIABLE}=${spec.runDir}`],
        ...(cgroup ? { cgroup: cgroup.directory.number } : {}),
      }),
      async (started) => {
        started.kill();
        await started.exited;
      },
    );
    cgroup?.directory.close();
    channels.controlListener.close();
    await this.#createMachine(vm, worker, plan, kvmFd, channels.consoleWriter.number, signal);
    channels.consoleWriter.close();
    undo.move();
    return new BuiltinMachine({
      driver: this.name,
      spec,
      worker,
      vm,
      guest: new GuestHotplug(spec.agent.kind === "hybrid-vsock" ? spec.agent.path : ""),
      inventory: new Inventory(plan.windows.slice(request.firstSpecSlot), spec.devices),
      memory: request.memory,
      console,
      consoleEnded,
      closeConsole: () => consoleStop.abort(),
      removeTraces: () => {
        removeChannelFiles(spec.runDir);
        removeMachineCgroup(spec.id);
      },
    });
  }

  /** When hako-vmm ends instead of answering, its own words say why. */
  async #createMachine(
    vm: VirtualMachine,
    worker: Worker,
    plan: MachinePlan,
    kvmFd: number,
    consoleFd: number,
    signal?: AbortSignal,
  ): Promise<void> {
    try {
      await vm.create(plan, kvmFd, consoleFd, signal);
    } catch (error) {
      if (HakoError.from(error).code !== "UNAVAILABLE") throw error;
      worker.kill();
      throw new HakoError("UNAVAILABLE", describeEnd(await worker.exited, await worker.messages()));
    }
  }
}

/** What no machine can have is refused before anything starts. */
function checkBounds(spec: MachineSpec): void {
  if (spec.vcpus > WIRE.VCPUS_MAX) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Cannot have ${spec.vcpus} vCPUs: the built-in monitor takes ${WIRE.VCPUS_MAX}`,
    );
  }
  if (spec.devices.length <= MAX_DEVICES) return;
  throw new HakoError(
    "RESOURCE_EXHAUSTED",
    `Cannot have ${spec.devices.length} devices: the built-in monitor takes ${MAX_DEVICES}`,
  );
}
