import { HakoError } from "#base/error.ts";
import type { Command } from "./command.ts";
import { JSON_OPTION } from "./command.ts";
import { openStore } from "./store.ts";

export const command: Command = {
  name: "logs",
  usage: "[OPTIONS] CONTAINER",
  summary: "Print what a detached container wrote.",
  details: `What the container wrote to standard error goes to standard error. A container that was run in the foreground has no
log. The oldest output is dropped when the log has reached its size (key "max_bytes" of table "log" in the configuration).`,
  options: [
    { name: "follow", short: "f", kind: "flag", help: "Go on until the container stops" },
    { name: "timestamps", short: "t", kind: "flag", help: "Begin every piece of output with its time" },
    JSON_OPTION,
  ],
  positionals: { min: 1, max: 1 },
  async run(input) {
    const [reference = ""] = input.positionals;
    const store = await openStore();
    const state = await store.lookup(reference);
    if (!state.detached) {
      throw new HakoError(
        "FAILED_PRECONDITION",
        `Container "${state.name}" has no log: it was run in the foreground`,
      );
    }
    const { printLog } = await import("./print-log.ts");
    await printLog(store, state, {
      follow: input.flag("follow"),
      timestamps: input.flag("timestamps"),
      json: input.flag("json"),
    });
    return 0;
  },
};
