/**
 * The role table: one executable, many roles, chosen by the name it was started under or by its first word.
 * Every role is behind a dynamic import, so that a start pays only for its own.
 */
import { basename } from "node:path";
import { HakoError } from "#base/error.ts";

/** Takes the words after the role's name, resolves to the exit code. */
type Role = (args: string[]) => Promise<number>;

const roles: Readonly<Record<string, () => Promise<{ run: Role }>>> = {
  agent: () => import("#agent/main.ts"),
  "confidential-data-hub": () => import("#cdh/main.ts"),
  hako: () => import("#cli/main.ts"),
  "containerd-shim-hako-v2": () => import("#shim/main.ts"),
  "containerd-shim-kata-v2": () => import("#shim/main.ts"),
};

/** `argv`: the executable, the script (bun's), then the words of the command line. */
export async function main(argv: readonly string[]): Promise<void> {
  const words = argv.slice(2);
  const named = basename(process.argv0);
  const first = words[0] ?? "";
  const role = first in roles && first !== "hako" ? first : named in roles ? named : "hako";
  const args = role === first ? words.slice(1) : words;
  process.on("uncaughtException", fail);
  process.on("unhandledRejection", fail);
  const load = roles[role];
  if (!load) throw new HakoError("INTERNAL", `There is no role "${role}"`);
  process.exit(await (await load()).run(args));
}

/** The last resort: a short line instead of pages of minified source, and the exit code of hako's own errors. */
function fail(caught: unknown): void {
  const error = HakoError.from(caught);
  process.stderr.write(`hako: ${error.fullMessage}\n`);
  if (process.env.HAKO_DEBUG && error.stack) process.stderr.write(`${error.stack}\n`);
  process.exit(125);
}

if (import.meta.main) await main(process.argv);
