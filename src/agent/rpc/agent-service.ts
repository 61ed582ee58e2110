import type { Sandbox } from "#agent/sandbox.ts";
import type { AgentServiceDefinition } from "#proto/agent.ts";
import type { ServiceImplementation } from "#ttrpc/server.ts";
import { containerMethods } from "./container.ts";
import { fileMethods } from "./file.ts";
import { guestMethods } from "./guest.ts";
import { memoryMethods } from "./memory.ts";
import { metricsMethods } from "./metrics.ts";
import { networkMethods } from "./network.ts";
import { processMethods } from "./process.ts";
import { sandboxMethods } from "./sandbox.ts";
import { stdioMethods } from "./stdio.ts";
import { volumeMethods } from "./volume.ts";

/** Some methods of grpc.AgentService. */
export type AgentMethods = ServiceImplementation<typeof AgentServiceDefinition>;

/** What the methods act on. */
export interface AgentRuntime {
  readonly sandbox: Sandbox;
  /**
   * The sandbox is destroyed: ends the guest once the answers under way have left, or in a template makes the next
   * sandbox, which is there when it resolves.
   */
  afterDestroy(): void | Promise<void>;
}

/** Service grpc.AgentService; methods that are not here answer UNIMPLEMENTED. */
export function agentService(runtime: AgentRuntime): AgentMethods {
  return {
    ...sandboxMethods(runtime),
    ...containerMethods(runtime),
    ...processMethods(runtime),
    ...stdioMethods(runtime),
    ...networkMethods(runtime),
    ...guestMethods,
    ...memoryMethods(runtime),
    ...volumeMethods(runtime),
    ...fileMethods(runtime),
    ...metricsMethods,
  };
}
