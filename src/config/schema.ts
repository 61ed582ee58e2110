import * as v from "valibot";
import { agentTable } from "./schema/agent.ts";
import { hypervisorTables } from "./schema/hypervisor.ts";
import { logTable, networkTable, runtimeTable } from "./schema/runtime.ts";

/**
 * All that a configuration file can say, and the only place where it is written down: types, defaults, documentation
 * and messages are taken from here. The names are Kata's where Kata has the setting.
 */
export const schema = v.object({
  runtime: v.optional(runtimeTable, {}),
  hypervisor: v.optional(hypervisorTables, {}),
  agent: v.optional(v.object({ kata: v.optional(agentTable, {}) }), {}),
  network: v.optional(networkTable, {}),
  log: v.optional(logTable, {}),
});

/** What a file holds after the defaults were filled in. */
export type FileConfig = v.InferOutput<typeof schema>;
