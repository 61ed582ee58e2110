import { HakoError } from "#base/error.ts";

/** The command line of a shim as containerd writes it: flags in Go's style, then one word. */
export interface ShimFlags {
  readonly namespace: string;
  /** Of the container that the shim is started or cleaned up for. */
  readonly id: string;
  /** containerd's own socket, part of the name of ours. */
  readonly address: string;
  readonly publishBinary: string;
  readonly bundle: string;
  readonly debug: boolean;
  /**
   * Serve a sandbox that runs already; hako's own word, never containerd's. When that fails, `try` cleans the sandbox up
   * and begins anew, `must` ends the shim.
   */
  readonly adopt: "no" | "try" | "must";
  /** Empty: serve. */
  readonly action: "" | "start" | "delete";
  /** Print something about the shim instead. */
  readonly print?: "help" | "info" | "version";
}

const VALUES = ["namespace", "id", "address", "publish-binary", "bundle", "socket"] as const;
const PRINTS: Readonly<Record<string, "help" | "info" | "version">> = {
  h: "help",
  help: "help",
  info: "info",
  v: "version",
  version: "version",
};

export const USAGE = `Usage: containerd-shim-hako-v2 [FLAGS] [start|delete]

containerd starts this program; without a word it serves the tasks of one sandbox.

  -namespace NAME        namespace of containerd
  -id ID                 container the shim is for
  -address PATH          containerd's socket
  -publish-binary PATH   containerd's executable (not used: events go over TTRPC_ADDRESS)
  -bundle DIR            bundle of the container, for delete
  -debug                 log more
  -info, -v              print what the runtime is, as a message or as text
`;

/** Throws INVALID_ARGUMENT for an unknown flag or word, a flag without its value, and a needed flag that is missing. */
export function parseFlags(words: readonly string[]): ShimFlags {
  const values = new Map<string, string>();
  let debug = false;
  let adopt: ShimFlags["adopt"] = "no";
  let print: ShimFlags["print"];
  let at = 0;
  for (; at < words.length; at++) {
    const match = /^--?([a-z-]+)(?:=(.*))?$/s.exec(words[at] ?? "");
    if (!match) break;
    const [, name = "", inline] = match;
    if (name === "debug") debug = inline !== "false";
    else if (name === "adopt") adopt = inline === "must" ? "must" : "try";
    else if (Object.hasOwn(PRINTS, name)) print = PRINTS[name];
    else if (VALUES.some((known) => known === name)) values.set(name, inline ?? takeValue(words, ++at, name));
    else throw new HakoError("INVALID_ARGUMENT", `Unknown flag "-${name}"`);
  }
  const action = words[at] ?? "";
  if (action !== "" && action !== "start" && action !== "delete") {
    throw new HakoError("INVALID_ARGUMENT", `Unknown command "${action}": there are start and delete`);
  }
  const value = (name: (typeof VALUES)[number]) => values.get(name) ?? "";
  const flags: ShimFlags = {
    namespace: value("namespace"),
    id: value("id"),
    address: value("address"),
    publishBinary: value("publish-binary"),
    bundle: value("bundle"),
    debug,
    adopt,
    action,
    ...(print && { print }),
  };
  if (!print) checkNeeded(flags);
  return flags;
}

function takeValue(words: readonly string[], index: number, name: string): string {
  const value = words[index];
  if (value !== undefined) return value;
  throw new HakoError("INVALID_ARGUMENT", `Flag "-${name}" has no value`);
}

/** containerd's identifiers: pkg/identifiers allows 76 characters, words joined by one of `._-`. */
const IDENTIFIER = /^(?=.{1,76}$)[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*$/;

function checkNeeded({ namespace, id }: ShimFlags): void {
  for (const [name, value] of [["namespace", namespace] as const, ["id", id] as const]) {
    if (value === "") throw new HakoError("INVALID_ARGUMENT", `Flag "-${name}" is missing`);
    checkIdentifier(value, name);
  }
}

/** Throws INVALID_ARGUMENT: ids become part of paths. */
export function checkIdentifier(value: string, what: string): string {
  if (IDENTIFIER.test(value)) return value;
  throw new HakoError("INVALID_ARGUMENT", `Cannot use ${JSON.stringify(value.slice(0, 160))} as ${what}`);
}
