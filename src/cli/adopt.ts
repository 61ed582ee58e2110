import { HakoError } from "#base/error.ts";
import { findPaths } from "#config/paths.ts";
import { StateStore } from "#runtime/state-store.ts";
import { adoptShim, isOrphan } from "#shim/adopt.ts";
import type { Command } from "./command.ts";
import { JSON_OPTION } from "./command.ts";
import { print, printJson } from "./output.ts";

export const command: Command = {
  name: "adopt",
  usage: "[OPTIONS] [SANDBOX...]",
  summary: "Give sandboxes of containerd a new shim when theirs died.",
  details:
    "Without a name, all that run without a shim. Do it while containerd is stopped:\none that runs cleans up after a dead shim at once.",
  options: [JSON_OPTION],
  positionals: { min: 0, max: Number.POSITIVE_INFINITY },
  async run(input) {
    const store = new StateStore(findPaths().runDir);
    const named = await Promise.all(input.positionals.map((reference) => store.lookup(reference)));
    const states = named.length > 0 ? named : (await store.list()).filter(isOrphan);
    const adopted: { id: string; name: string; shimPid: number }[] = [];
    const failures: HakoError[] = [];
    for (const state of states) {
      try {
        adopted.push({ id: state.id, name: state.name, shimPid: await adoptShim(store, state) });
      } catch (error) {
        failures.push(HakoError.from(error));
      }
    }
    if (input.flag("json")) printJson(adopted);
    else for (const { name } of adopted) print(name);
    const [first] = failures;
    if (!first) return 0;
    throw new HakoError(first.code, failures.map((failure) => failure.fullMessage).join("; "));
  },
};
