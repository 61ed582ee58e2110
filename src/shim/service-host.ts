import { logger } from "#telemetry/log.ts";
import type { TtrpcServer } from "#ttrpc/server.ts";
import type { ServiceEntry } from "./registry.ts";
import type { ShimContext, ShimService } from "./service.ts";

const log = logger("services");

/** Loads services when they are first used, and stops them in reverse. */
export class ServiceHost {
  readonly #server: TtrpcServer;
  readonly #entries: readonly ServiceEntry[];
  readonly #started: ShimService[] = [];
  #context: ShimContext | undefined;

  constructor(server: TtrpcServer, entries: readonly ServiceEntry[]) {
    this.#server = server;
    this.#entries = entries;
  }

  /** Offers what is called over ttrpc. */
  offer(context: ShimContext): void {
    this.#context = context;
    for (const entry of this.#entries) {
      if (entry.use !== "sandbox") this.#server.registerLater(entry.use, () => this.#start(entry));
    }
  }

  /** Whether anything was called, or a sandbox ran. */
  get used(): boolean {
    return this.#started.length > 0;
  }

  /** The sandbox runs: what belongs to it starts. One that fails is logged, the sandbox runs all the same. */
  async sandboxStarted(): Promise<void> {
    for (const entry of this.#entries) {
      if (entry.use !== "sandbox") continue;
      try {
        await this.#start(entry);
      } catch (error) {
        log.error("a service did not start", { service: entry.name, error });
      }
    }
  }

  async stop(): Promise<void> {
    for (const service of this.#started.reverse()) {
      await service.stop().catch((error: unknown) => {
        log.error("a service did not stop", { service: service.name, error });
      });
    }
  }

  async #start(entry: ServiceEntry): Promise<void> {
    if (!this.#context) return;
    const service = await entry.load(this.#context);
    await service.start();
    this.#started.push(service);
    for (const { definition, implementation } of service.calls)
      this.#server.register(definition, implementation);
  }
}
