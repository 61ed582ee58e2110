import type { Config } from "#config/config.ts";
import type { Paths } from "#config/paths.ts";
import type { Sandbox, SandboxSpec } from "./sandbox.ts";
import type { StateStore } from "./state-store.ts";
import type { Timeline } from "./timeline.ts";

/**
 * Makes sandboxes of one kind. Kata's names: `virt_container` puts a sandbox into a virtual machine, `linux_container`
 * only into namespaces of this host.
 * Whoever holds a Sandbox disposes of it, whether it was started or not.
 */
export interface RuntimeHandler {
  readonly name: string;
  /** Claims id and name and writes the first state; nothing runs yet. ALREADY_EXISTS for a name in use. */
  createSandbox(spec: SandboxSpec, signal?: AbortSignal): Promise<Sandbox>;
  /**
   * Takes over a sandbox that runs although its manager has died. NOT_FOUND when there is none or its machine has ended,
   * FAILED_PRECONDITION when its manager lives, UNIMPLEMENTED where the machine's driver cannot do that.
   */
  adoptSandbox(id: string, signal?: AbortSignal): Promise<Sandbox>;
}

/** What a handler works with. */
export interface HandlerContext {
  readonly paths: Paths;
  readonly config: Config;
  readonly store: StateStore;
  readonly timeline: Timeline;
}
