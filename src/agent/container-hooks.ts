import type { Hooks } from "#proto/oci.ts";
import type { HookSubject } from "./launcher/hook-fields.ts";

/** Kinds of hooks that run in the agent's own namespaces. */
type AgentHookKind = "Prestart" | "CreateRuntime" | "Poststart" | "Poststop";

/** One container's hooks on the agent's side. What runs them is loaded when there is one. */
export class ContainerHooks {
  readonly #hooks: Hooks | undefined;
  readonly #subject: HookSubject;

  constructor(hooks: Hooks | undefined, subject: HookSubject) {
    this.#hooks = hooks;
    this.#subject = subject;
  }

  has(kind: AgentHookKind): boolean {
    return (this.#hooks?.[kind].length ?? 0) > 0;
  }

  /** Runs the hooks of a kind in their order, the container's state on their standard input. */
  async run(kind: AgentHookKind, pid: number, signal?: AbortSignal): Promise<void> {
    if (!this.has(kind)) return;
    const { runAgentHooks } = await import("./hooks.ts");
    await runAgentHooks(this.#hooks, kind, this.#subject, pid, signal);
  }

  /** What is to happen before the container changes its root; undefined when nothing is. */
  holding(signal: AbortSignal | undefined): ((pid: number) => Promise<void>) | undefined {
    if (!this.has("Prestart") && !this.has("CreateRuntime")) return undefined;
    return async (pid) => {
      await this.run("Prestart", pid, signal);
      await this.run("CreateRuntime", pid, signal);
    };
  }
}
