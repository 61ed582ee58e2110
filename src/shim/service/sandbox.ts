import { HakoError } from "#base/error.ts";
import { abortable } from "#base/mutex.ts";
import { Metrics as MetricsV1 } from "#proto/containerd/cgroup1.ts";
import { SandboxDefinition } from "#proto/containerd/sandbox.ts";
import { packAny } from "#shim/any.ts";
import { readBundle } from "#shim/bundle.ts";
import type { SandboxRequest } from "#shim/sandbox-factory.ts";
import { type ServiceCalls, type ShimContext, type ShimService, serviceCalls } from "#shim/service.ts";
import { toTimestamp } from "#shim/timestamp.ts";
import type { ServiceImplementation } from "#ttrpc/server.ts";

const KILLED = 137;

/** How a sandbox that containerd runs as such came to its end. */
interface SandboxExit {
  readonly code: number;
  readonly at: Date;
}

/** containerd's sandbox API (2.x): the sandbox is there without a container that stands for it. */
export class SandboxService implements ShimService {
  readonly name = "sandbox";
  readonly calls: readonly ServiceCalls[];
  readonly #context: ShimContext;
  readonly #exited = Promise.withResolvers<SandboxExit>();
  #planned: SandboxRequest | undefined;
  #createdAt: Date | undefined;
  #exit: SandboxExit | undefined;

  constructor(context: ShimContext) {
    this.#context = context;
    this.calls = [serviceCalls(SandboxDefinition, this.#implementation())];
  }

  async start(): Promise<void> {}

  async stop(): Promise<void> {
    this.#ended(0);
  }

  #implementation(): ServiceImplementation<typeof SandboxDefinition> {
    const { pod, shutdown } = this.#context;
    return {
      createSandbox: async (request) => {
        this.#check(request.sandboxId);
        if (this.#planned) throw this.#refuse("create", "it exists");
        const config = await readBundle(request.bundlePath);
        const annotations = { ...config.annotations, ...request.annotations };
        const { options } = request;
        this.#planned = { config: { ...config, annotations }, isPod: true, ...(options && { options }) };
        return {};
      },
      startSandbox: async ({ sandboxId }, { signal }) => {
        this.#check(sandboxId);
        if (!this.#planned) throw this.#refuse("start", "it was not created");
        if (this.#createdAt) throw this.#refuse("start", "it was started before");
        const sandbox = await pod.startSandbox(this.#planned, signal);
        this.#createdAt = new Date();
        sandbox.broken.catch(() => this.#ended(KILLED));
        return { pid: pod.monitorPid(), createdAt: toTimestamp(this.#createdAt) };
      },
      platform: ({ sandboxId }) => {
        this.#check(sandboxId);
        return { platform: { os: "linux", architecture: "amd64" } };
      },
      stopSandbox: async ({ sandboxId }) => {
        this.#check(sandboxId);
        await pod.stop();
        this.#ended(0);
        return {};
      },
      waitSandbox: async ({ sandboxId }, { signal }) => {
        this.#check(sandboxId);
        const exit = await abortable(this.#exited.promise, signal);
        return { exitStatus: exit.code, exitedAt: toTimestamp(exit.at) };
      },
      sandboxStatus: ({ sandboxId, verbose }) => {
        this.#check(sandboxId);
        const running = this.#createdAt !== undefined && !this.#exit;
        return {
          sandboxId,
          pid: pod.monitorPid(),
          state: running ? "SANDBOX_READY" : "SANDBOX_NOTREADY",
          ...(verbose && { info: this.#info() }),
          ...(this.#createdAt && { createdAt: toTimestamp(this.#createdAt) }),
          ...(this.#exit && { exitedAt: toTimestamp(this.#exit.at) }),
        };
      },
      pingSandbox: async ({ sandboxId }, { signal }) => {
        this.#check(sandboxId);
        const { agent } = pod.lookupSandbox().lookupAgent();
        await agent.getGuestDetails({}, { signal });
        return {};
      },
      shutdownSandbox: async ({ sandboxId }) => {
        this.#check(sandboxId);
        await pod.stop();
        this.#ended(0);
        shutdown();
        return {};
      },
      sandboxMetrics: async ({ sandboxId }, { signal }) => {
        this.#check(sandboxId);
        const data = packAny("io.containerd.cgroups.v1.Metrics", MetricsV1, await this.#usage(signal));
        return { metrics: { timestamp: toTimestamp(new Date()), id: sandboxId, data } };
      },
    };
  }

  #check(id: string): void {
    const { sandboxId } = this.#context.pod.options;
    if (id === sandboxId) return;
    throw new HakoError(
      "NOT_FOUND",
      `There is no sandbox "${id.slice(0, 160)}" here: this shim has "${sandboxId}"`,
    );
  }

  #refuse(action: string, reason: string): HakoError {
    const { sandboxId } = this.#context.pod.options;
    return new HakoError("FAILED_PRECONDITION", `Cannot ${action} sandbox "${sandboxId}": ${reason}`);
  }

  #ended(code: number): void {
    this.#exit ??= { code, at: new Date() };
    this.#exited.resolve(this.#exit);
  }

  #info(): Record<string, string> {
    const machine = this.#context.pod.sandbox?.state.machine;
    if (!machine) return {};
    const { machineType, accelerator, vcpus, memoryMib, monitor } = machine;
    return {
      hypervisor: monitor.driver,
      machineType,
      accelerator,
      vcpus: String(vcpus),
      memoryMib: String(memoryMib),
    };
  }

  /** The sum over the containers that run. */
  async #usage(signal: AbortSignal) {
    const running = [...this.#context.pod.tasks.values()].filter(({ status }) => status !== "stopped");
    const { metricsV1 } = await import("#shim/stats.ts");
    const all = await Promise.all(running.map(async (task) => metricsV1(await task.usage(signal))));
    const sum = (pick: (metrics: (typeof all)[number]) => bigint | undefined) =>
      all.reduce((total, metrics) => total + (pick(metrics) ?? 0n), 0n);
    return {
      pids: { current: sum(({ pids }) => pids?.current) },
      cpu: {
        usage: {
          total: sum(({ cpu }) => cpu?.usage?.total),
          kernel: sum(({ cpu }) => cpu?.usage?.kernel),
          user: sum(({ cpu }) => cpu?.usage?.user),
        },
      },
      memory: { usage: { usage: sum(({ memory }) => memory?.usage?.usage) } },
      network: all[0]?.network ?? [],
    };
  }
}
