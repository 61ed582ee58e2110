import type { Command } from "./command.ts";
import { JSON_OPTION } from "./command.ts";
import { printJson } from "./output.ts";
import { openStore } from "./store.ts";

export const command: Command = {
  name: "inspect",
  usage: "CONTAINER [CONTAINER...]",
  summary: "Print all that is known about containers, as JSON.",
  options: [JSON_OPTION],
  positionals: { min: 1, max: Number.POSITIVE_INFINITY },
  async run(input) {
    const store = await openStore();
    const found = [];
    for (const reference of input.positionals) {
      const state = await store.lookup(reference);
      found.push({ ...state, dir: store.sandboxDir(state.id) });
    }
    printJson(found);
    return 0;
  },
};
