import { HakoError } from "#base/error.ts";
import type { HandlerContext, RuntimeHandler } from "#runtime/handler.ts";
import type { Sandbox, SandboxSpec } from "#runtime/sandbox.ts";
import { type SandboxState, STATE_VERSION } from "#runtime/state.ts";
import { sweep } from "#runtime/sweep.ts";
import { processStartTime } from "#sys/process.ts";
import { adoptedSpec, ownIdentity } from "./adopted.ts";
import { planMachine } from "./machine-plan.ts";
import { VirtSandbox } from "./sandbox.ts";

/** Sandboxes in virtual machines. */
export class VirtContainerHandler implements RuntimeHandler {
  readonly name = "virt_container";
  readonly #context: HandlerContext;

  constructor(context: HandlerContext) {
    this.#context = context;
  }

  async createSandbox(spec: SandboxSpec, signal?: AbortSignal): Promise<Sandbox> {
    const { store, config } = this.#context;
    const plan = planMachine(spec, config);
    const state: SandboxState = {
      version: STATE_VERSION,
      id: spec.id,
      name: spec.name,
      createdAt: new Date().toISOString(),
      handler: this.name,
      manager: ownIdentity(),
      detached: spec.detached,
      autoRemove: spec.autoRemove,
      ...(spec.keeper && { keeper: spec.keeper }),
      ...(spec.sharedShmMib !== undefined && { sharedShmMib: spec.sharedShmMib }),
      status: "creating",
      containers: [],
    };
    await sweep(store);
    using _ = await store.lock(signal);
    await store.create(state);
    return new VirtSandbox(spec, plan, state, this.#context);
  }

  async adoptSandbox(id: string, signal?: AbortSignal): Promise<Sandbox> {
    const { store, config } = this.#context;
    const state = await store.find(id);
    if (!state) throw new HakoError("NOT_FOUND", `There is no sandbox "${id}"`);
    const { pid, startTime } = state.manager;
    if (processStartTime(pid) === startTime) {
      throw new HakoError("FAILED_PRECONDITION", `Cannot adopt sandbox "${state.name}": its manager runs`);
    }
    const spec = adoptedSpec(state);
    const sandbox = new VirtSandbox(spec, planMachine(spec, config), state, this.#context);
    await sandbox.adopt(signal);
    return sandbox;
  }
}
