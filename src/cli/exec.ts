import type { Command } from "./command.ts";

export const command: Command = {
  name: "exec",
  usage: "[OPTIONS] CONTAINER COMMAND [ARG...]",
  summary: "Run a command in a running container.",
  details: "The exit code is the command's; 125, 126 and 127 mean what they mean for hako run.",
  options: [
    { name: "detach", short: "d", kind: "flag", help: "Do not wait for the command; its output is dropped" },
    { name: "interactive", short: "i", kind: "flag", help: "Pass standard input on" },
    { name: "tty", short: "t", kind: "flag", help: "Give the command a terminal" },
    {
      name: "env",
      short: "e",
      kind: "list",
      placeholder: "NAME[=VALUE]",
      help: "Set an environment variable",
    },
    { name: "workdir", short: "w", kind: "value", placeholder: "DIR", help: "Working directory inside" },
    {
      name: "user",
      short: "u",
      kind: "value",
      placeholder: "USER[:GROUP]",
      help: "Names or numbers to run as",
    },
  ],
  positionals: { min: 2, max: Number.POSITIVE_INFINITY, stopAtFirst: true },
  async run(input) {
    const { execInContainer } = await import("./exec-in-container.ts");
    return execInContainer(input);
  },
};
