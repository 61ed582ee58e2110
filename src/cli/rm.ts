import { HakoError } from "#base/error.ts";
import type { SandboxState } from "#runtime/state.ts";
import type { StateStore } from "#runtime/state-store.ts";
import { removeSandbox } from "#runtime/sweep.ts";
import { isOrphan } from "#shim/adopt.ts";
import type { Command } from "./command.ts";
import { JSON_OPTION } from "./command.ts";
import { ManagerConnection } from "./manager/client.ts";
import { print, printJson } from "./output.ts";
import { forEachContainer } from "./store.ts";

export const command: Command = {
  name: "rm",
  usage: "[OPTIONS] CONTAINER [CONTAINER...]",
  summary: "Remove stopped containers: their records and logs.",
  options: [{ name: "force", short: "f", kind: "flag", help: "Kill those that run" }, JSON_OPTION],
  positionals: { min: 1, max: Number.POSITIVE_INFINITY },
  async run(input) {
    const done: string[] = [];
    const json = input.flag("json");
    try {
      await forEachContainer(
        input.positionals,
        (state, store) => remove(state, store, input.flag("force")),
        (reference) => (json ? done.push(reference) : print(reference)),
      );
    } finally {
      if (json) printJson(done);
    }
    return 0;
  },
};

async function remove(state: SandboxState, store: StateStore, force: boolean): Promise<void> {
  if (state.status !== "stopped") {
    if (!force) {
      const word = state.status === "creating" ? "being created" : "running";
      throw new HakoError(
        "FAILED_PRECONDITION",
        `Cannot remove container "${state.name}": it is ${word} (rm -f kills it)`,
      );
    }
    if (isOrphan(state)) {
      using _ = await store.lock();
      return await removeSandbox(store, state.id);
    }
    using connection = await ManagerConnection.open(state, store.sandboxDir(state.id));
    await connection.manager.remove({});
    return;
  }
  using _ = await store.lock();
  await store.remove(state.id, state.name);
}
