import { HakoError } from "#base/error.ts";
import { validateId } from "#base/id.ts";
import type {
  AgentChannel,
  Capability,
  Hypervisor,
  HypervisorProbe,
  Machine,
  MachineSpec,
  MachineState,
  RestoreSpec,
} from "#hypervisor/hypervisor.ts";
import { validateMachineSpec } from "#hypervisor/machine-spec.ts";
import { probeKvm } from "#linux/kvm-kind.ts";
import { type Fd, O, openFd } from "#sys/fd.ts";
import { type Discovery, hostArchitecture } from "#vmm/architecture.ts";
import { GuestHotplug } from "#vmm/guest-hotplug.ts";
import { GENERATION_ID_SIZE, planMachine } from "#vmm/machine-plan.ts";
import { loadSnapshot } from "#vmm/snapshot/load.ts";
import { WIRE } from "#vmm/wire.ts";
import { Inventory } from "./inventory.ts";
import { type LaunchRequest, launch } from "./launch.ts";
import { cleanUpLeftovers } from "./leftover.ts";
import { BuiltinMachine, sizesOf } from "./machine.ts";
import { planRestore } from "./restore-plan.ts";
import { MAX_DEVICES, toVmSpec } from "./vm-spec.ts";

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
  "snapshot",
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

  create(spec: MachineSpec, signal?: AbortSignal): Promise<Machine> {
    return named(`Cannot create machine "${spec.id}"`, () => this.#create(spec, signal), signal);
  }

  restore(spec: RestoreSpec, signal?: AbortSignal): Promise<Machine> {
    return named(`Cannot restore machine "${spec.id}"`, () => this.#restore(spec, signal), signal);
  }

  cleanUp(state: MachineState): Promise<void> {
    return cleanUpLeftovers(state);
  }

  #findProblem(): string | undefined {
    const { kind, detail } = probeKvm();
    if (kind === "hardware" || (kind === "pvm" && this.#options.anyKvm)) return undefined;
    return detail;
  }

  #openKvm(): Fd {
    const problem = this.#findProblem();
    if (problem === undefined) return openFd(KVM_DEVICE, O.RDWR);
    throw new HakoError("FAILED_PRECONDITION", `Cannot use KVM: ${problem}`);
  }

  async #create(wanted: MachineSpec, signal?: AbortSignal): Promise<Machine> {
    signal?.throwIfAborted();
    this.capabilities(wanted);
    validateMachineSpec(wanted);
    checkBounds(wanted);
    // A host may have more processors than a machine can grow to.
    const maxVcpus = Math.min(wanted.maxVcpus ?? wanted.vcpus, WIRE.VCPUS_MAX);
    const spec = { ...wanted, maxVcpus, maxMemoryMib: wanted.maxMemoryMib ?? wanted.memoryMib };
    const architecture = await hostArchitecture();
    using kvm = this.#openKvm();
    const { discovery = "acpi", bootTimer = false, cacheDir } = this.#options;
    const request = toVmSpec(spec, discovery, bootTimer);
    const plan = planMachine(request.spec, architecture, architecture.readHostCpu(kvm.number, cacheDir));
    const { id, runDir } = spec;
    const fill: LaunchRequest["fill"] = (vm, consoleFd) => vm.create(plan, kvm.number, consoleFd, signal);
    const launched = await launch({ id, runDir, vcpus: maxVcpus, fill }, signal);
    const { firstSpecSlot } = request;
    return new BuiltinMachine({
      ...launched,
      driver: this.name,
      sizes: spec,
      guest: new GuestHotplug(agentPath(spec.agent)),
      inventory: new Inventory(plan.windows.slice(firstSpecSlot), spec.devices),
      memory: request.memory,
      record: {
        create: plan.create,
        memory: plan.memory,
        devices: plan.records,
        windowCount: plan.windows.length,
        driver: sizesOf(spec),
      },
      firstSpecSlot,
      identity: plan.vcpus.map((vcpu) => architecture.identity(vcpu)),
    });
  }

  async #restore(spec: RestoreSpec, signal?: AbortSignal): Promise<Machine> {
    signal?.throwIfAborted();
    validateId(spec.id, "machine id");
    const architecture = await hostArchitecture();
    using kvm = this.#openKvm();
    const cpu = architecture.readHostCpu(kvm.number, this.#options.cacheDir);
    const copy = spec.memory === "private";
    using snapshot = loadSnapshot(spec.snapshotDir, architecture, cpu, copy);
    const { machine } = snapshot.manifest;
    const plan = planRestore(spec, machine, architecture.deviceWindows(machine.windowCount));
    const id = crypto.getRandomValues(new Uint8Array(GENERATION_ID_SIZE));
    const request = { snapshot, devices: plan.devices, copy, generation: { ...architecture.generation, id } };
    const fill: LaunchRequest["fill"] = (vm, consoleFd) => vm.restore(request, kvm.number, consoleFd, signal);
    const { runDir } = spec;
    const launched = await launch({ id: spec.id, runDir, vcpus: machine.create.vcpus, fill }, signal);
    return new BuiltinMachine({
      ...launched,
      driver: this.name,
      sizes: { ...plan.sizes, id: spec.id, runDir },
      guest: new GuestHotplug(agentPath(spec.agent)),
      inventory: plan.inventory,
      memory: plan.memory,
      record: machine,
      firstSpecSlot: plan.firstSpecSlot,
      identity: snapshot.vcpus.map((vcpu) => architecture.identity(vcpu)),
    });
  }
}

/** Every failure says what it was that failed; a cancelled one counts as cancelled, whatever it ended in. */
async function named<T>(action: string, work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (signal?.aborted) throw new HakoError("CANCELLED", `${action}: cancelled`, { cause: signal.reason });
    throw new HakoError(HakoError.from(error).code, action, { cause: error });
  }
}

function agentPath(agent: AgentChannel): string {
  return agent.kind === "hybrid-vsock" ? agent.path : "";
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
