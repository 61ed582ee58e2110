import { HakoError } from "#base/error.ts";
import type { Command } from "./command.ts";
import { JSON_OPTION } from "./command.ts";

export const command: Command = {
  name: "policy",
  usage:
    "check NAME|FILE [--request NAME [--input FILE]] | generate [OPTIONS] MANIFEST|IMAGE [-- COMMAND...]",
  summary: "Check or write a policy for the agent.",
  details: `"check" reads a policy in Rego (allow-all, allow-all-except-exec, allow-set-policy, deny-all, or a file) as the agent
does, and says what is wrong with it and on which line. With --request it also decides on a request, given as JSON in the
form that policies see, and says which condition refuses it; the exit code is then 0 for allowed and 1 for denied.

"generate" prints a policy that allows one pod and nothing else: that of a workload in a Kubernetes MANIFEST (a file that ends
in .yaml), or one container of an IMAGE, as "hako run IMAGE COMMAND" makes it. It holds commands, environment, users,
capabilities, and what may be mounted where and from where. The content of images is not part of it.`,
  options: [
    {
      name: "request",
      kind: "value",
      placeholder: "NAME",
      help: "check: decide on this request, as ExecProcessRequest",
    },
    { name: "input", kind: "value", placeholder: "FILE", help: "check: the request as JSON (default {})" },
    {
      name: "image",
      kind: "list",
      placeholder: "NAME=REFERENCE",
      help: "generate: an image of the manifest, for its entry point",
    },
    {
      name: "pod",
      kind: "value",
      placeholder: "NAME",
      help: "generate: the workload, when the manifest has several",
    },
    { name: "allow-output", kind: "flag", help: "generate: the host may read what containers write" },
    { name: "allow-exec", kind: "flag", help: "generate: any command may be run in the containers" },
    { name: "run-dir", kind: "value", placeholder: "DIR", help: "generate: the agent's run directory" },
    {
      name: "env",
      short: "e",
      kind: "list",
      placeholder: "NAME=VALUE",
      help: "generate: a variable, for an image",
    },
    {
      name: "volume",
      short: "v",
      kind: "list",
      placeholder: "GUEST[:ro]",
      help: "generate: a volume, for an image",
    },
    { name: "tty", short: "t", kind: "flag", help: "generate: the container has a terminal, for an image" },
    {
      name: "interactive",
      short: "i",
      kind: "flag",
      help: "generate: the host may write to it, for an image",
    },
    JSON_OPTION,
  ],
  positionals: { min: 2, max: Number.POSITIVE_INFINITY },
  async run(input) {
    const [action, , surplus] = input.positionals;
    if (action === "generate") return await (await import("./policy/generate.ts")).generatePolicy(input);
    if (action === "check" && surplus === undefined)
      return (await import("./policy/check.ts")).checkPolicy(input);
    const word = action === "check" ? surplus : action;
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Unexpected word "${word}" for "hako policy" (see "hako policy --help")`,
    );
  },
};
