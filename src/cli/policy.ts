import { HakoError } from "#base/error.ts";
import type { Command } from "./command.ts";
import { JSON_OPTION } from "./command.ts";

export const command: Command = {
  name: "policy",
  usage: "check NAME|FILE [--request NAME [--input FILE]]",
  summary: "Check a policy for the agent.",
  details: `"check" reads a policy in Rego (allow-all, allow-all-except-exec, allow-set-policy, deny-all, or a file) as the agent
does, and says what is wrong with it and on which line. With --request it also decides on a request, given as JSON in the
form that policies see, and says which condition refuses it; the exit code is then 0 for allowed and 1 for denied.`,
  options: [
    {
      name: "request",
      kind: "value",
      placeholder: "NAME",
      help: "Decide on this request, as ExecProcessRequest",
    },
    { name: "input", kind: "value", placeholder: "FILE", help: "The request as JSON (default {})" },
    JSON_OPTION,
  ],
  positionals: { min: 2, max: 2 },
  async run(input) {
    const [action] = input.positionals;
    if (action === "check") return (await import("./policy/check.ts")).checkPolicy(input);
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Unknown word "${action}" for "hako policy" (see "hako policy --help")`,
    );
  },
};
