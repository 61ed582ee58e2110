import { HakoError } from "#base/error.ts";
import type { HandlerContext, RuntimeHandler } from "#runtime/handler.ts";
import type { Sandbox, SandboxSpec } from "#runtime/sandbox.ts";
import { type SandboxState, STATE_VERSION } from "#runtime/state.ts";
import { sweep } from "#runtime/sweep.ts";
import { ownIdentity } from "#runtime/virt-container/adopted.ts";
import { logger } from "#telemetry/log.ts";
import { LinuxSandbox } from "./sandbox.ts";

/**
 * Sandboxes without a virtual machine: the same containers, in namespaces of this host, run by the same agent. They share
 * the host's kernel: this is for trying things and for tests, not for code that nobody trusts.
 */
export class LinuxContainerHandler implements RuntimeHandler {
  readonly name = "linux_container";
  readonly #context: HandlerContext;

  constructor(context: HandlerContext) {
    this.#context = context;
  }

  async createSandbox(spec: SandboxSpec, signal?: AbortSignal): Promise<Sandbox> {
    checkSpec(spec);
    const { store } = this.#context;
    const state: SandboxState = {
      version: STATE_VERSION,
      id: spec.id,
      name: spec.name,
      createdAt: new Date().toISOString(),
      handler: this.name,
      manager: ownIdentity(),
      detached: spec.detached,
      autoRemove: spec.autoRemove,
      status: "creating",
      containers: [],
    };
    await sweep(store);
    using _ = await store.lock(signal);
    await store.create(state);
    logger("linux-container").info("no virtual machine: containers share the kernel of this host", {
      id: spec.id,
    });
    return new LinuxSandbox(spec, state, this.#context);
  }

  async adoptSandbox(id: string): Promise<never> {
    throw new HakoError(
      "UNIMPLEMENTED",
      `Cannot adopt sandbox "${id}": those without a virtual machine end with their manager`,
    );
  }
}

function checkSpec({ hypervisor, machineType, network, keeper, cloning }: SandboxSpec): void {
  const refuse = (what: string) => {
    throw new HakoError("INVALID_ARGUMENT", `A sandbox without a virtual machine has no ${what}`);
  };
  if (hypervisor !== undefined) refuse(`hypervisor "${hypervisor}"`);
  if (machineType !== undefined) refuse(`machine type "${machineType}"`);
  if (keeper !== undefined) refuse("keeper");
  if (cloning === "practice") refuse("machine to be saved");
  if (network === "none") return;
  throw new HakoError(
    "UNIMPLEMENTED",
    `Network "${network}" is not there for sandboxes without a virtual machine: only none is`,
  );
}
