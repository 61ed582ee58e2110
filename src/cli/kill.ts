import { parseSignal } from "#oci/signal.ts";
import type { Command } from "./command.ts";
import { JSON_OPTION } from "./command.ts";
import { runOnManagers } from "./manager/each.ts";

export const command: Command = {
  name: "kill",
  usage: "[OPTIONS] CONTAINER [CONTAINER...]",
  summary: "Send a signal to the first process of containers.",
  details: "SIGKILL ends all processes of the container.",
  options: [
    {
      name: "signal",
      short: "s",
      kind: "value",
      placeholder: "SIGNAL",
      help: "Name or number (default: SIGKILL)",
    },
    JSON_OPTION,
  ],
  positionals: { min: 1, max: Number.POSITIVE_INFINITY },
  async run(input) {
    const signal = parseSignal(input.value("signal") ?? "SIGKILL");
    return runOnManagers(input, (manager, containerId) => manager.kill({ containerId, signal }));
  },
};
