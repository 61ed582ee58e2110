import type { AgentAddress } from "#agent-client/address.ts";
import type { AgentClient } from "#agent-client/client.ts";
import { HakoError } from "#base/error.ts";
import { PhaseBudget } from "#base/phase-budget.ts";
import { LoopDevice } from "#linux/loop-device.ts";
import { diskPath } from "#resource/storage.ts";
import type { BundleSpec, ContainerSpec } from "#runtime/container.ts";
import type { HandlerContext } from "#runtime/handler.ts";
import { nextStatus, SANDBOX_TRANSITIONS } from "#runtime/lifecycle.ts";
import type { Sandbox, SandboxSpec } from "#runtime/sandbox.ts";
import { SandboxRecord } from "#runtime/sandbox-record.ts";
import type { ContainerState, SandboxState } from "#runtime/state.ts";
import type { Timeline } from "#runtime/timeline.ts";
import { type ContainerHost, type ContainerPlan, VirtContainer } from "#runtime/virt-container/container.ts";
import { describeContainer } from "#runtime/virt-container/container-description.ts";
import { planContainer } from "#runtime/virt-container/container-plan.ts";
import { HostAgent } from "./host-agent.ts";
import { fitRlimits } from "./host-limit.ts";
import { relocateAgent } from "./relocated-agent.ts";

const MIB = 1024 * 1024;
/** 128 + SIGKILL. */
const KILLED_EXIT_CODE = 137;

type Agent = AgentClient["agent"];

/** A sandbox in namespaces of this host. */
export class LinuxSandbox implements Sandbox {
  readonly id: string;
  readonly dir: string;
  readonly timeline: Timeline;
  readonly state: SandboxState;
  readonly containers = new Map<string, VirtContainer>();
  readonly #spec: SandboxSpec;
  readonly #context: HandlerContext;
  readonly #record: SandboxRecord;
  readonly #cleanup = new AsyncDisposableStack();
  readonly #broken = Promise.withResolvers<never>();
  readonly #loops = new Map<string, LoopDevice>();
  #running: { readonly host: HostAgent; readonly agent: Agent } | undefined;

  constructor(spec: SandboxSpec, state: SandboxState, context: HandlerContext) {
    this.id = spec.id;
    this.dir = context.store.sandboxDir(spec.id);
    this.timeline = context.timeline;
    this.state = state;
    this.#record = new SandboxRecord(state, context.store);
    this.#spec = spec;
    this.#context = context;
    this.#cleanup.defer(() => this.#finish());
    this.#broken.promise.catch(() => {});
  }

  get broken(): Promise<never> {
    return this.#broken.promise;
  }

  async addContainer(request: ContainerSpec | BundleSpec, signal?: AbortSignal): Promise<VirtContainer> {
    nextStatus(SANDBOX_TRANSITIONS, this.state.status, "add container", this.#subject);
    if (this.containers.has(request.id)) {
      throw new HakoError("ALREADY_EXISTS", `Sandbox "${this.state.name}" has a container "${request.id}"`);
    }
    const budget = new PhaseBudget(`create container "${request.id.slice(0, 12)}"`, this.#createTimeoutMs);
    const memoryMib = this.#spec.memoryMib ?? this.#context.config.hypervisor.qemu.defaultMemory;
    const { stateDir } = this.#context.paths;
    const { emptydirMode: emptyDirMode } = this.#context.config.runtime;
    const share = "a container without a machine gets copies only";
    const volume = { sharedShm: false, stateDir, emptyDirMode, share };
    const preparing = planContainer(
      request,
      { containerMemory: memoryMib * MIB, volume, budget, disableSeccomp: false },
      signal,
    );
    const planned = this.#withoutMachineSize(request, await this.timeline.measure("image", preparing));
    const plan = { ...planned, spec: fitRlimits(planned.spec) };
    const release = this.#cleanup.use(new AsyncDisposableStack());
    release.use(plan.resources);
    for (const { serial, fd, readOnly = true } of plan.resources.disks) {
      const loop = release.use(LoopDevice.attach(fd, { readOnly }));
      this.#loops.set(diskPath(serial), loop);
      release.defer(() => void this.#loops.delete(diskPath(serial)));
    }
    const state = describeContainer(request, plan);
    const container = new VirtContainer(this.#containerHost(state, release), state, plan, budget);
    await this.#record.update(() => {
      this.state.containers.push(state);
      this.containers.set(request.id, container);
    });
    return container;
  }

  async start(signal?: AbortSignal): Promise<void> {
    const status = nextStatus(SANDBOX_TRANSITIONS, this.state.status, "start", this.#subject);
    const { kata } = this.#context.config.agent;
    const starting = HostAgent.start(
      {
        id: this.id,
        directory: this.dir,
        connectTimeoutMs: kata.reconnectTimeoutMs,
        logLevel: kata.enableDebug ? "debug" : kata.logLevel,
        saveState: (hostAgent) =>
          this.#record.update(() => {
            this.state.hostAgent = hostAgent;
          }),
      },
      signal,
    );
    const host = this.#cleanup.use(await this.timeline.measure("agent answers", starting));
    host.broken.catch((error) => this.#broken.reject(error));
    const agent = relocateAgent(host.agent, host.runDirectory, (path) => this.#loops.get(path)?.path);
    this.#running = { host, agent };
    const request = { hostname: this.#spec.hostname, sandboxId: this.id };
    await this.timeline.measure("sandbox created", agent.createSandbox(request, signal ? { signal } : {}));
    await this.#record.update(() => {
      this.state.status = status;
    });
    void this.#record.watchOutOfMemory(agent);
  }

  async save(): Promise<never> {
    throw new HakoError("UNIMPLEMENTED", `Cannot save ${this.#subject}: it has no machine`);
  }

  lookupAgent(): { agent: Agent; address: AgentAddress } {
    const { agent, host } = this.#lookupRunning();
    return { agent, address: host.address };
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

  get #subject(): string {
    return `sandbox "${this.state.name}"`;
  }

  get #createTimeoutMs(): number {
    return this.#context.config.agent.kata.createContainerTimeout * 1000;
  }

  #lookupRunning() {
    if (this.#running) return this.#running;
    throw new HakoError("FAILED_PRECONDITION", `Cannot use ${this.#subject}: it has not started`);
  }

  /** The size that a machine would have is no limit that anybody asked for. */
  #withoutMachineSize(request: ContainerSpec | BundleSpec, plan: ContainerPlan): ContainerPlan {
    const { linux } = plan.spec;
    const asked =
      "config" in request || request.memoryLimit !== undefined || this.#spec.memoryMib !== undefined;
    if (asked || !linux?.resources) return plan;
    const { memory: _, ...resources } = linux.resources;
    return { ...plan, spec: { ...plan.spec, linux: { ...linux, resources } } };
  }

  #containerHost(state: ContainerState, release: AsyncDisposableStack): ContainerHost {
    return {
      createTimeoutMs: this.#createTimeoutMs,
      agent: () => this.#lookupRunning().agent,
      explain: (error) => this.#running?.host.explain(error) ?? Promise.resolve(error),
      update: (change) => this.#record.update(change),
      async beforeStart() {},
      async resize() {},
      release: async () => {
        await release.disposeAsync();
        await this.#record.update(() => {
          this.containers.delete(state.id);
          this.state.containers = this.state.containers.filter((other) => other !== state);
        });
      },
    };
  }

  /** The last step of the end: nothing runs any more. */
  #finish(): Promise<void> {
    return this.#record.finish(() => {
      for (const container of this.containers.values()) {
        container.stopped(KILLED_EXIT_CODE, "The sandbox was stopped");
      }
    });
  }
}
