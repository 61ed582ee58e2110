import { rm } from "node:fs/promises";
import { type AgentAddress, formatAddress, parseAddress } from "#agent-client/address.ts";
import { HakoError } from "#base/error.ts";
import { PhaseBudget } from "#base/phase-budget.ts";
import { hypervisorConfig } from "#config/config.ts";
import { DeviceManager } from "#device/device-manager.ts";
import type { MachineState } from "#hypervisor/hypervisor.ts";
import { type ChosenHypervisor, chooseHypervisor, lookupHypervisor } from "#hypervisor/registry.ts";
import { type Assets, ensureAssets } from "#resource/asset.ts";
import type { BundleSpec, ContainerSpec } from "#runtime/container.ts";
import type { HandlerContext } from "#runtime/handler.ts";
import { nextStatus, SANDBOX_TRANSITIONS } from "#runtime/lifecycle.ts";
import type { Sandbox, SandboxSpec } from "#runtime/sandbox.ts";
import { SandboxRecord } from "#runtime/sandbox-record.ts";
import type { ContainerState, SandboxState } from "#runtime/state.ts";
import type { Template } from "#runtime/template/template-store.ts";
import type { Timeline } from "#runtime/timeline.ts";
import { adoptedPlan, ownIdentity } from "./adopted.ts";
import { openAgentLink } from "./agent-channel.ts";
import { type ContainerHost, VirtContainer } from "./container.ts";
import { describeContainer } from "./container-description.ts";
import { attachDevices } from "./container-devices.ts";
import { planInTime } from "./container-plan.ts";
import { Guest } from "./guest.ts";
import { type GuestNetwork, openGuestNetwork, plugInterfaces } from "./guest-network.ts";
import { createGuestSandbox, individualize, readPolicy } from "./guest-sandbox.ts";
import { openCgroup } from "./host-cgroup.ts";
import { launchGuest } from "./launch.ts";
import { openMachineFiles } from "./machine-files.ts";
import { kernelParams, type MachinePlan, machineType, sizeWithin } from "./machine-plan.ts";
import { MachineSizing } from "./machine-sizing.ts";
import { type PlannedSandbox, planOptions, volumePlace } from "./plan-options.ts";
import { prepareSandboxVolumes } from "./sandbox-volumes.ts";

/** Exit code of a container whose machine was taken away. */
const KILLED_EXIT_CODE = 137;
/** All that a machine keeps of its console. */
const MAX_CONSOLE_BYTES = 64 * 1024;

/** A sandbox in a virtual machine of its own. */
export class VirtSandbox implements Sandbox {
  readonly id: string;
  readonly dir: string;
  readonly timeline: Timeline;
  readonly containers = new Map<string, VirtContainer>();
  readonly state: SandboxState;
  readonly #spec: SandboxSpec;
  readonly #plan: MachinePlan;
  readonly #context: HandlerContext;
  readonly #record: SandboxRecord;
  readonly #cleanup = new AsyncDisposableStack();
  readonly #devices = new DeviceManager();
  readonly #broken = Promise.withResolvers<never>();
  /** Both begin at once and are waited for only when the machine is made. */
  readonly #assets: Promise<Assets>;
  readonly #hypervisor: Promise<ChosenHypervisor>;
  readonly #adding = new Set<string>();
  #guest: Guest | undefined;
  #network: GuestNetwork | undefined;
  #sizing: MachineSizing | undefined;
  #agentAddress: AgentAddress | undefined;

  constructor(spec: SandboxSpec, plan: MachinePlan, state: SandboxState, context: HandlerContext) {
    const { config, paths, store, timeline } = context;
    this.id = spec.id;
    this.dir = store.sandboxDir(spec.id);
    this.timeline = timeline;
    this.state = state;
    this.#record = new SandboxRecord(state, store);
    this.#spec = spec;
    this.#plan = plan;
    this.#context = context;
    this.#cleanup.defer(() => this.#finish());
    this.#cleanup.use(this.#devices);
    this.#assets = timeline.measure("asset", ensureAssets(paths.stateDir));
    this.#hypervisor = chooseHypervisor(spec.hypervisor ?? config.runtime.hypervisorName, config);
    // Whoever waits for them later sees the failure; until then it must not count as unhandled.
    for (const promise of [this.#assets, this.#hypervisor, this.#broken.promise]) promise.catch(() => {});
  }

  get broken(): Promise<never> {
    return this.#broken.promise;
  }

  async addContainer(request: ContainerSpec | BundleSpec, signal?: AbortSignal): Promise<VirtContainer> {
    nextStatus(SANDBOX_TRANSITIONS, this.state.status, "add container", this.#subject);
    if (this.containers.has(request.id) || this.#adding.has(request.id)) {
      throw new HakoError("ALREADY_EXISTS", `Sandbox "${this.state.name}" has a container "${request.id}"`);
    }
    this.#adding.add(request.id);
    const budget = new PhaseBudget(
      `create container "${request.id.slice(0, 12)}"`,
      this.#context.config.agent.kata.createContainerTimeout * 1000,
    );
    await using undo = new AsyncDisposableStack();
    undo.defer(() => void this.#adding.delete(request.id));
    const options = planOptions(await this.#planned(), this.#plan);
    const preparing = planInTime(request, { ...options, budget }, signal);
    const planned = await this.timeline.measure("image", preparing);
    const resources = this.#cleanup.use(planned.resources);
    const failed = undo.use(new AsyncDisposableStack());
    const release = failed.use(new AsyncDisposableStack());
    release.use(resources);
    const placement = { release, unplug: (id: string) => this.#unplug(id) };
    const attaching = (inner: AbortSignal) => attachDevices(this.#devices, resources, placement, inner);
    const deviceIds = await budget.run("attaching disks", attaching, signal);
    const state = { ...describeContainer(request, planned), deviceIds };
    const host = this.#containerHost(state.id, () => this.#forget(state, release));
    const container = new VirtContainer(host, state, planned, budget);
    // A sandbox that has not started has its containers on disk when its machine is.
    await this.#record.update(() => {
      this.state.containers.push(state);
      this.containers.set(request.id, container);
    });
    failed.move();
    return container;
  }

  async start(signal?: AbortSignal): Promise<void> {
    const status = nextStatus(SANDBOX_TRANSITIONS, this.state.status, "start", this.#subject);
    const { config, timeline } = this.#context;
    const [assets, choice] = await Promise.all([this.#assets, this.#hypervisor]);
    const type = machineType(this.#spec, config, choice.hypervisor.name);
    const capabilities = choice.hypervisor.capabilities({ machineType: type });
    const link = this.#cleanup.use(await openAgentLink(this.dir, capabilities));
    const network = await this.#openNetwork(signal);
    const { size } = this.#plan;
    this.#sizing = new MachineSizing({ size, capabilities, pinning: config.runtime.enableVcpusPinning });
    const saveCgroups = (cgroups: readonly string[]) =>
      this.#record.update(() => void Object.assign(this.state, { cgroups }));
    const cgroup = this.#cleanup.use(await openCgroup(this.#spec, config, saveCgroups));
    const files = this.#cleanup.use(
      openMachineFiles(assets, hypervisorConfig(config, choice.hypervisor.name).kernel),
    );
    for (const disk of files.disks) {
      await this.#devices.addDisk({ ...disk, id: disk.serial, readOnly: true }, signal);
    }
    const place = { ...volumePlace(await this.#planned()), hugepageLimits: [] };
    const preparing = prepareSandboxVolumes(this.#spec, config.runtime.sandboxBindMounts, place, signal);
    const volumes = this.#cleanup.use(await preparing);
    for (const disk of volumes.disks) await this.#devices.addDisk({ ...disk, readOnly: true }, signal);
    const policy = await readPolicy(config.agent.kata.policy);
    const template = await this.#findTemplate(choice, assets, signal);
    const commonDevices = new Set(files.disks.map(({ serial }) => serial));
    const { guest, cloned } = await launchGuest(
      {
        hypervisor: choice.hypervisor,
        boot: {
          id: this.id,
          runDir: this.dir,
          machineType: type,
          kernelFd: files.kernelFd,
          initrdFd: files.initrdFd,
          kernelParams: kernelParams(link.kernelParam, this.#spec, config, choice.hypervisor.name),
          ...sizeWithin(capabilities, size),
          devices: this.#devices.specs,
          sharedMemory: (this.#spec.hotplug ?? false) && typeof place.share !== "string",
          agent: link.channel,
        },
        ...(template && { template }),
        memory: config.runtime.template === "private" ? "private" : "shared",
        commonDevices,
        forget: (damaged) => this.#forgetTemplate(damaged),
        agentAddress: link.address,
        connectTimeoutMs: config.agent.kata.reconnectTimeoutMs,
        timeline,
        saveState: (monitor) => this.#saveMachine(monitor, type, choice.probe.accelerator, link.address),
      },
      signal,
    );
    this.#runGuest(guest, link.address);
    timeline.addGuestStart(guest.machine.consoleTail(MAX_CONSOLE_BYTES), guest.bootMs);
    if (cloned) {
      await timeline.measure("own identity", individualize(guest.agent, signal));
      await timeline.measure("devices", this.#devices.bindRestored(guest.machine, commonDevices, signal));
    } else {
      this.#devices.bind(guest.machine);
    }
    this.#network = network;
    await cgroup.enter(guest.machine, signal);
    await timeline.measure(
      "sandbox created",
      createGuestSandbox(guest.agent, this.#spec, { network, volumes, policy }, signal),
    );
    this.state.status = status;
    void this.#record.watchOutOfMemory(guest.agent);
  }

  async save(dir: string, signal?: AbortSignal): Promise<void> {
    const guest = this.#lookupGuest();
    await guest.agent.destroySandbox({}, signal ? { signal } : {});
    await guest.freeze(signal);
    await guest.machine.save(dir, signal);
  }

  /** What to clone the machine from; undefined when it is to boot. */
  async #findTemplate(
    { hypervisor }: ChosenHypervisor,
    assets: Assets,
    signal?: AbortSignal,
  ): Promise<Template | undefined> {
    const { config } = this.#context;
    if (this.#spec.cloning !== undefined || config.runtime.template === "off") return undefined;
    const type = machineType(this.#spec, config, hypervisor.name);
    if (!hypervisor.capabilities({ machineType: type }).has("snapshot")) return undefined;
    const { provideTemplate } = await import("./template.ts");
    return provideTemplate({ hypervisor, assets, plan: this.#plan }, this.#context, signal);
  }

  async #forgetTemplate({ key }: Template): Promise<void> {
    const { openTemplateStore } = await import("./template.ts");
    await openTemplateStore(this.#context.paths.stateDir).destroy(key);
  }

  /** Takes over what another manager had started. On failure the machine is left as it is. */
  async adopt(signal?: AbortSignal): Promise<void> {
    const { machine: record, agentAddress } = this.state;
    if (!record || agentAddress === undefined || this.state.status === "stopped") {
      throw new HakoError("NOT_FOUND", `Cannot adopt ${this.#subject}: it does not run`);
    }
    const { config } = this.#context;
    const hypervisor = await lookupHypervisor(record.monitor.driver, config);
    if (!hypervisor.adopt) {
      throw new HakoError(
        "UNIMPLEMENTED",
        `Cannot adopt ${this.#subject}: "${hypervisor.name}" cannot do that`,
      );
    }
    const { cgroups = [] } = this.state;
    if (cgroups.length > 0) {
      const { removeCgroups } = await import("#linux/cgroup/host/host-cgroup.ts");
      this.#cleanup.defer(() => removeCgroups(cgroups));
    }
    const { machine, devices } = await hypervisor.adopt({ ...record, state: record.monitor }, signal);
    const address = parseAddress(agentAddress);
    const connectTimeoutMs = config.agent.kata.reconnectTimeoutMs;
    const guest = await Guest.adopt(machine, { agentAddress: address, connectTimeoutMs }, signal);
    if (address.kind === "serial" || address.kind === "hybrid-vsock")
      this.#cleanup.defer(() => rm(address.path, { force: true }));
    this.#runGuest(guest, address);
    this.#devices.adopt(machine, devices);
    await this.#record.update(() => {
      this.state.manager = ownIdentity();
      this.state.status = "running";
    });
    for (const state of this.state.containers) this.#adoptContainer(state);
    void this.#record.watchOutOfMemory(guest.agent);
  }

  #adoptContainer(state: ContainerState): void {
    const release = new AsyncDisposableStack();
    for (const id of state.deviceIds ?? []) release.defer(() => this.#unplug(id));
    const host = this.#containerHost(state.id, () => this.#forget(state, release));
    const container = new VirtContainer(host, state, adoptedPlan(state), new PhaseBudget("", 0));
    this.containers.set(state.id, container);
    container.adopted();
  }

  #runGuest(guest: Guest, address: AgentAddress): void {
    this.#guest = this.#cleanup.use(guest);
    this.#agentAddress = address;
    guest.broken.catch((error) => this.#broken.reject(error));
  }

  lookupAgent(): { agent: Guest["agent"]; address: AgentAddress } {
    const { agent } = this.#lookupGuest();
    if (!this.#agentAddress)
      throw new HakoError("INTERNAL", `Cannot tell the address of ${this.#subject}'s agent`);
    return { agent, address: this.#agentAddress };
  }

  onOutOfMemory(listener: (containerId: string) => void): void {
    this.#record.onOutOfMemory(listener);
  }

  async removeOnStop(): Promise<void> {
    await this.#record.update(() => {
      this.state.autoRemove = true;
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#cleanup.disposeAsync();
  }

  async #planned(): Promise<PlannedSandbox> {
    const choice = await this.#hypervisor;
    return { spec: this.#spec, choice, runDir: this.dir, context: this.#context };
  }

  get #subject(): string {
    return `sandbox "${this.state.name}"`;
  }

  #containerHost(id: string, release: () => Promise<void>): ContainerHost {
    return {
      release,
      createTimeoutMs: this.#context.config.agent.kata.createContainerTimeout * 1000,
      agent: () => this.#lookupGuest().agent,
      explain: (error) => this.#guest?.explain(error) ?? Promise.resolve(error),
      update: (change) => this.#record.update(change),
      resize: async (resources, signal) => {
        this.#sizing?.set(id, resources);
        if (this.#guest) await this.#sizing?.apply(this.#guest, signal);
      },
      beforeStart: async (signal) => {
        const later = this.#network?.findLater();
        if (later) await plugInterfaces(later, this.#devices, this.#lookupGuest().agent, signal);
      },
    };
  }

  /** A container was removed from the guest: what it had goes, too. */
  async #forget(state: ContainerState, resources: AsyncDisposableStack): Promise<void> {
    await resources.disposeAsync();
    this.#sizing?.delete(state.id);
    if (this.#guest) await this.#sizing?.apply(this.#guest);
    await this.#record.update(() => {
      this.containers.delete(state.id);
      this.state.containers = this.state.containers.filter((other) => other !== state);
    });
  }

  /** Takes a device out of the running machine. Where the machine cannot do that it stays to the end, unused. */
  async #unplug(deviceId: string): Promise<void> {
    const { hypervisor } = await this.#hypervisor;
    const type = machineType(this.#spec, this.#context.config, hypervisor.name);
    const canUnplug = !this.#guest || hypervisor.capabilities({ machineType: type }).has("block-hotplug");
    if (canUnplug) await this.#devices.remove(deviceId);
  }

  #lookupGuest(): Guest {
    if (this.#guest) return this.#guest;
    throw new HakoError("FAILED_PRECONDITION", `Cannot use ${this.#subject}: it has not started`);
  }

  async #openNetwork(signal?: AbortSignal): Promise<GuestNetwork> {
    const context = { config: this.#context.config, sandboxId: this.id, vcpus: this.#plan.vcpus };
    const network = this.#cleanup.use(openGuestNetwork(this.#spec.network, context));
    for (const device of network.devices) await this.#devices.addNetwork(device, signal);
    this.state.network = network.state;
    return network;
  }

  /** Before the monitor starts, and after: whoever finds the state can clean up. */
  async #saveMachine(
    monitor: MachineState,
    machineType: string,
    accelerator: string,
    agent: AgentAddress,
  ): Promise<void> {
    const { vcpus, memoryMib } = this.#plan;
    await this.#record.update(() => {
      this.state.machine = { machineType, accelerator, vcpus, memoryMib, monitor };
      this.state.agentAddress = formatAddress(agent);
    });
  }

  /** The last step of the end: nothing runs any more. */
  #finish(): Promise<void> {
    return this.#record.finish(() => {
      for (const container of this.containers.values()) {
        container.stopped(KILLED_EXIT_CODE, "The virtual machine was stopped");
      }
    });
  }
}
