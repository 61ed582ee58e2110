import type { ServiceDefinition } from "#ttrpc/definition.ts";
import type { ServiceImplementation } from "#ttrpc/server.ts";
import type { EventLoopLag } from "./event-loop-lag.ts";
import type { Pod } from "./pod.ts";

/** ttrpc calls of one service. */
export interface ServiceCalls {
  readonly definition: ServiceDefinition;
  readonly implementation: ServiceImplementation<ServiceDefinition>;
}

/**
 * Something that a shim offers: ttrpc services, or a socket of its own. A new one is a file with this interface and a
 * line in `registry.ts`. `start` is called once before the first call, `stop` once at the end; neither is called for a
 * service that nobody used.
 */
export interface ShimService {
  readonly name: string;
  /** Empty for one that is not called over ttrpc. */
  readonly calls: readonly ServiceCalls[];
  start(): Promise<void>;
  stop(): Promise<void>;
}

/** What services work with. */
export interface ShimContext {
  readonly pod: Pod;
  readonly lag: EventLoopLag;
  /** Ends the shim once the calls under way were answered. */
  shutdown(): void;
}

/** Types a service's calls, which a list of them forgets. */
export function serviceCalls<Definition extends ServiceDefinition>(
  definition: Definition,
  implementation: ServiceImplementation<Definition>,
): ServiceCalls {
  return { definition, implementation: implementation as ServiceImplementation<ServiceDefinition> };
}
