/**
 * The lab for people: `bun tests/lab/shell.ts [--cpus 1|2] [--memory MIB] [-- COMMAND…]`
 *
 * Boots L1 and runs one command there, whose output and exit code become ours; without a command it gives a shell on
 * L1's serial console, and the machine ends with the shell.
 */
import { Lab } from "../support/lab.ts";

/** An hour: a person is watching and can press Ctrl-C. */
const COMMAND_TIMEOUT_MS = 3_600_000;

const usage = "usage: bun tests/lab/shell.ts [--cpus 1|2] [--memory MIB] [-- COMMAND…]";

/** Options end at the first word that is none; Bun swallows a `--` itself. */
function parseCommandLine(words: readonly string[]) {
  let cpus: 1 | 2 = 2;
  let memoryMib = 2048;
  let at = 0;
  for (; words[at]?.startsWith("--") && words[at] !== "--"; at += 2) {
    const value = Number(words[at + 1]);
    if (words[at] === "--cpus" && (value === 1 || value === 2)) cpus = value;
    else if (words[at] === "--memory" && Number.isInteger(value) && value >= 512) memoryMib = value;
    else throw new Error(usage);
  }
  return { cpus, memoryMib, command: words.slice(words[at] === "--" ? at + 1 : at) };
}

async function main(): Promise<number> {
  const unavailable = Lab.unavailable();
  if (unavailable) throw new Error(unavailable);
  const { command, ...options } = parseCommandLine(Bun.argv.slice(2));
  const interactive = command.length === 0;
  await using lab = await Lab.start({ ...options, interactive });
  if (interactive) {
    const code = await lab.exited;
    if (code !== 0) console.error(lab.consoleTail());
    return code;
  }
  const { code } = await lab.run(command, {
    timeoutMs: COMMAND_TIMEOUT_MS,
    onOutput: (stream, chunk) => process[stream].write(chunk),
  });
  return code;
}

try {
  process.exit(await main());
} catch (error) {
  console.error(`lab: ${error instanceof Error ? error.message : error}`);
  process.exit(125);
}
