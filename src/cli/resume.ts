import type { Command } from "./command.ts";
import { JSON_OPTION } from "./command.ts";
import { runOnManagers } from "./manager/each.ts";

export const command: Command = {
  name: "resume",
  usage: "CONTAINER [CONTAINER...]",
  summary: "Let paused containers go on.",
  options: [JSON_OPTION],
  positionals: { min: 1, max: Number.POSITIVE_INFINITY },
  async run(input) {
    return runOnManagers(input, (manager, containerId) => manager.resume({ containerId }));
  },
};
