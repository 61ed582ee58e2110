import { EXIT_HAKO_FAILED } from "./exit-code.ts";
import { type Answer, parseAnswer } from "./manager/answer.ts";
import { print, printConsoleTail, printError, printJson } from "./output.ts";
import type { RunRequest } from "./run-request.ts";
import { SignalRouter } from "./signals.ts";

/** What a manager needs of our environment; BUN_* and NODE_* could make it run other code. */
const PASSED_ON = /^(PATH|HOME|LANG|LC_[A-Z]+|TMPDIR|TZ|HAKO_[A-Z_]+)$/;

/** An answer is one line; an error's text may come from anywhere. */
const MAX_ANSWER_BYTES = 64 * 1024;

/** Starts a manager in a session of its own and returns when its container runs, or why it does not. */
export async function runDetached(request: RunRequest, options: { json: boolean }): Promise<number> {
  using signals = new SignalRouter();
  const manager = Bun.spawn(["/proc/self/exe", "manager", request.sandbox.id], {
    argv0: "hako",
    detached: true,
    env: cleanEnvironment(process.env),
    stdin: "pipe",
    stdout: "pipe",
    stderr: "ignore",
  });
  // The manager gives the start up when this pipe closes before it has answered.
  const onAbort = () => void manager.stdin.end();
  signals.aborted.addEventListener("abort", onAbort, { once: true });
  manager.stdin.write(`${JSON.stringify(request)}\n`);
  manager.stdin.flush();
  const answer = await readAnswer(manager.stdout);
  manager.unref();
  return report(answer, request, signals.exitCode, options.json);
}

function report(answer: Answer, request: RunRequest, interrupted: number | undefined, json: boolean): number {
  if (answer.kind === "failed") {
    if (interrupted !== undefined) return interrupted;
    printError(answer.message);
    printConsoleTail(answer.consoleTail);
    return answer.exitCode;
  }
  const { id, name } = request.sandbox;
  if (json) printJson({ id, name });
  else print(id);
  return 0;
}

async function readAnswer(stream: ReadableStream<Uint8Array>): Promise<Answer> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of stream) {
    chunks.push(chunk);
    length += chunk.length;
    if (chunk.includes(0x0a) || length > MAX_ANSWER_BYTES) break;
  }
  const line = Buffer.concat(chunks).toString().split("\n", 1)[0] ?? "";
  if (line !== "") return parseAnswer(line);
  return {
    kind: "failed",
    exitCode: EXIT_HAKO_FAILED,
    message: "The manager of the container died before it started one",
  };
}

function cleanEnvironment(env: Readonly<Record<string, string | undefined>>): Record<string, string> {
  const kept = Object.entries(env).filter((entry): entry is [string, string] => {
    return PASSED_ON.test(entry[0]) && entry[1] !== undefined;
  });
  return Object.fromEntries(kept);
}
