import type { HandlerContext, RuntimeHandler } from "#runtime/handler.ts";
import type { Sandbox, SandboxSpec } from "#runtime/sandbox.ts";
import { type SandboxState, STATE_VERSION } from "#runtime/state.ts";
import { sweep } from "#runtime/sweep.ts";
import { processStartTime } from "#sys/process.ts";
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
      manager: { pid: process.pid, startTime: processStartTime(process.pid) ?? 0 },
      detached: spec.detached,
      autoRemove: spec.autoRemove,
      ...(spec.keeper && { keeper: spec.keeper }),
      status: "creating",
      containers: [],
    };
    await sweep(store);
    using _ = await store.lock(signal);
    await store.create(state);
    return new VirtSandbox(spec, plan, state, this.#context);
  }
}
