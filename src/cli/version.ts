import { version } from "#base/version.ts";
import type { Command } from "./command.ts";
import { JSON_OPTION } from "./command.ts";
import { print, printJson } from "./output.ts";

export const command: Command = {
  name: "version",
  usage: "",
  summary: "Print the version.",
  options: [JSON_OPTION],
  positionals: { min: 0, max: 0 },
  async run(input) {
    if (input.flag("json")) printJson({ version });
    else print(`hako ${version}`);
    return 0;
  },
};
