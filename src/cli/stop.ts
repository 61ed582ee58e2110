import { HakoError } from "#base/error.ts";
import { parseSignal } from "#oci/signal.ts";
import type { SandboxState } from "#runtime/state.ts";
import type { StateStore } from "#runtime/state-store.ts";
import type { Command } from "./command.ts";
import { JSON_OPTION } from "./command.ts";
import { ManagerConnection } from "./manager/client.ts";
import { print, printJson } from "./output.ts";
import { containerOf, forEachContainer } from "./store.ts";

const DEFAULT_SECONDS = "10";
const POLL_MS = 50;
const SIGKILL = 9;

export const command: Command = {
  name: "stop",
  usage: "[OPTIONS] CONTAINER [CONTAINER...]",
  summary: "Ask containers to end, and kill those that do not.",
  details: "The signal is the image's stop signal, SIGTERM if it names none.",
  options: [
    {
      name: "time",
      short: "t",
      kind: "value",
      placeholder: "SECONDS",
      help: `How long to wait before SIGKILL (default: ${DEFAULT_SECONDS})`,
    },
    JSON_OPTION,
  ],
  positionals: { min: 1, max: Number.POSITIVE_INFINITY },
  async run(input) {
    const graceMs = parseSeconds(input.value("time") ?? DEFAULT_SECONDS) * 1000;
    const done: string[] = [];
    const json = input.flag("json");
    try {
      await forEachContainer(
        input.positionals,
        (state, store) => stop(state, store, graceMs),
        (reference) => (json ? done.push(reference) : print(reference)),
      );
    } finally {
      if (json) printJson(done);
    }
    return 0;
  },
};

function parseSeconds(text: string): number {
  if (/^\d{1,6}$/.test(text)) return Number(text);
  throw new HakoError("INVALID_ARGUMENT", `--time ${text} is not a number of seconds`);
}

async function stop(state: SandboxState, store: StateStore, graceMs: number): Promise<void> {
  if (state.status === "stopped") return;
  using connection = await ManagerConnection.open(state, store.sandboxDir(state.id));
  const signal = parseSignal(containerOf(state)?.stopSignal ?? "SIGTERM");
  await connection.manager.kill({ containerId: state.id, signal });
  if (await hasStopped(store, state.id, graceMs)) return;
  await connection.manager.kill({ containerId: state.id, signal: SIGKILL });
  if (await hasStopped(store, state.id, graceMs + 10_000)) return;
  throw new HakoError(
    "DEADLINE_EXCEEDED",
    `Container "${state.name}" does not end (hako rm -f takes its machine away)`,
  );
}

/** Waits until all of the sandbox has ended. */
async function hasStopped(store: StateStore, id: string, timeoutMs: number): Promise<boolean> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const state = await store.find(id);
    if (!state || state.status === "stopped") return true;
    if (performance.now() >= deadline) return false;
    await Bun.sleep(POLL_MS);
  }
}
