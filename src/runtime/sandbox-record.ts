import type { AgentClient } from "#agent-client/client.ts";
import { Mutex } from "#base/mutex.ts";
import { logger } from "#telemetry/log.ts";
import { nextStatus, SANDBOX_TRANSITIONS } from "./lifecycle.ts";
import type { SandboxState } from "./state.ts";
import type { StateStore } from "./state-store.ts";

const log = logger("sandbox");

/** What every kind of sandbox keeps on disk about itself: one change at a time, each there before what follows it. */
export class SandboxRecord {
  readonly state: SandboxState;
  readonly #store: StateStore;
  readonly #mutex = new Mutex();
  readonly #outOfMemory: ((containerId: string) => void)[] = [];
  #finished = false;

  constructor(state: SandboxState, store: StateStore) {
    this.state = state;
    this.#store = store;
  }

  /** Changes the state and has it on disk when this resolves. */
  async update(change: () => void): Promise<void> {
    using _ = await this.#mutex.lock();
    change();
    if (!this.#finished) await this.#store.save(this.state);
  }

  /**
   * The last step of the end, when nothing runs any more: `stopContainers` notes so for each container; then the sandbox
   * is kept as stopped, or forgotten when it was to be removed or never started a container.
   */
  async finish(stopContainers: () => void): Promise<void> {
    const { state } = this;
    using _ = await this.#mutex.lock();
    this.#finished = true;
    stopContainers();
    using _lock = await this.#store.lock();
    const started = state.containers.some(({ startedAt }) => startedAt !== undefined);
    if (state.autoRemove || !started) return await this.#store.remove(state.id, state.name);
    state.status = nextStatus(SANDBOX_TRANSITIONS, state.status, "stop", `sandbox "${state.name}"`);
    await this.#store.save(state);
  }

  onOutOfMemory(listener: (containerId: string) => void): void {
    this.#outOfMemory.push(listener);
  }

  /** Notes which containers ran out of memory, for as long as the agent is there. */
  async watchOutOfMemory(agent: AgentClient["agent"]): Promise<void> {
    try {
      for (;;) {
        const { containerId } = await agent.getOOMEvent({});
        log.warn("a container ran out of memory", { container: containerId });
        const container = this.state.containers.find(({ id }) => id === containerId);
        if (container) container.oomKilled = true;
        for (const listener of this.#outOfMemory) listener(containerId);
      }
    } catch (error) {
      log.debug("the watch for memory ended", { error });
    }
  }
}
