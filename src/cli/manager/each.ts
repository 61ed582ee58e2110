import type { Arguments } from "#cli/arguments.ts";
import { print, printJson } from "#cli/output.ts";
import { forEachContainer } from "#cli/store.ts";
import { type Manager, ManagerConnection } from "./client.ts";

/** Asks the manager of each named container, and prints the names for which that worked. */
export async function runOnManagers(
  input: Arguments,
  ask: (manager: Manager, containerId: string) => Promise<unknown>,
): Promise<number> {
  const done: string[] = [];
  const json = input.flag("json");
  try {
    await forEachContainer(
      input.positionals,
      async (state, store) => {
        using connection = await ManagerConnection.open(state, store.sandboxDir(state.id));
        await ask(connection.manager, state.id);
      },
      (reference) => (json ? done.push(reference) : print(reference)),
    );
  } finally {
    if (json) printJson(done);
  }
  return 0;
}
