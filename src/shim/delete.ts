import { existsSync } from "node:fs";
import { rm } from "node:fs/promises";
import { findPaths } from "#config/paths.ts";
import { DeleteResponse } from "#proto/containerd/task.ts";
import { StateStore } from "#runtime/state-store.ts";
import { removeSandbox } from "#runtime/sweep.ts";
import { openProcess, pidfdSendSignal, waitPidfd } from "#sys/process.ts";
import { sandboxKey, socketPath } from "./address.ts";
import type { ShimFlags } from "./flags.ts";
import { findRecord } from "./record.ts";
import { toTimestamp } from "./timestamp.ts";

/** 128 + SIGKILL. */
const KILLED = 137;
const SIGKILL = 9;

/**
 * containerd's clean-up after a shim that died: ends all that is left of a sandbox and forgets it. For a container that
 * lives in the sandbox of another there is nothing to do: it goes with that one. Needs no bundle. Returns the message
 * that containerd reads from our standard output.
 */
export async function deleteShim(flags: ShimFlags): Promise<Uint8Array> {
  const store = new StateStore(findPaths().runDir);
  const key = sandboxKey(flags.namespace, flags.id);
  const exit = await findExit(store.sandboxDir(key), flags.id);
  const state = await store.findReadable(key);
  if (state !== undefined && state !== "unreadable") await endProcess(state.manager);
  // A shim that died early has left a directory without a state.
  if (existsSync(store.sandboxDir(key))) {
    using _ = await store.lock();
    await removeSandbox(store, key);
  }
  await rm(socketPath(flags.address, flags.namespace, flags.id), { force: true });
  return DeleteResponse.encode(
    DeleteResponse.fromPartial({ exitStatus: exit.code, exitedAt: toTimestamp(exit.at) }),
  ).finish();
}

/** How the container ended, when its shim had noted that. */
async function findExit(sandboxDir: string, id: string): Promise<{ code: number; at: Date }> {
  const record = await findRecord(sandboxDir).catch(() => undefined);
  const exit = record?.tasks.find((task) => task.id === id)?.exit;
  return exit ? { code: exit.code, at: new Date(exit.at) } : { code: KILLED, at: new Date() };
}

/** A shim that hangs is still there. */
async function endProcess({ pid, startTime }: { pid: number; startTime: number }): Promise<void> {
  using pidfd = openProcess(pid, startTime);
  if (pidfd && pidfdSendSignal(pidfd.number, SIGKILL)) await waitPidfd(pidfd.number);
}
