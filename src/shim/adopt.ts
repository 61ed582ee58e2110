import { HakoError } from "#base/error.ts";
import { TaskDefinition } from "#proto/containerd/task.ts";
import type { SandboxState } from "#runtime/state.ts";
import type { StateStore } from "#runtime/state-store.ts";
import { socketStream } from "#sys/byte-stream.ts";
import { processStartTime } from "#sys/process.ts";
import { unixConnect } from "#sys/socket.ts";
import { createClient, TtrpcClient } from "#ttrpc/client.ts";
import { findRecord } from "./record.ts";
import { listen, startServer } from "./start.ts";

/** Finding the machine and its agent, on a busy host. */
const ANSWER_TIMEOUT_MS = 30_000;

/** Whether a sandbox of containerd runs without a shim. */
export function isOrphan({ keeper, status, manager }: SandboxState): boolean {
  return (
    keeper === "containerd" && status === "running" && processStartTime(manager.pid) !== manager.startTime
  );
}

/**
 * Starts a new shim for a sandbox whose shim died; resolves to its pid when it answers. It listens where the dead one did,
 * so a containerd that is started afterwards finds it. Throws FAILED_PRECONDITION when the sandbox needs none, NOT_FOUND
 * when it was not containerd's.
 */
export async function adoptShim(store: StateStore, state: SandboxState): Promise<number> {
  if (!isOrphan(state)) {
    throw new HakoError(
      "FAILED_PRECONDITION",
      `Sandbox "${state.name}" needs no new shim: it is ${state.status}`,
    );
  }
  const record = await findRecord(store.sandboxDir(state.id));
  if (!record) throw new HakoError("NOT_FOUND", `Sandbox "${state.name}" had no shim`);
  const { namespace, sandboxId, containerdAddress, ttrpcAddress, socketPath, bundle } = record;
  using listener = await listen(socketPath, { id: sandboxId });
  const flags = { namespace, id: sandboxId, address: containerdAddress, publishBinary: "", debug: false };
  const more = {
    words: ["-adopt=must"],
    env: ttrpcAddress === undefined ? {} : { TTRPC_ADDRESS: ttrpcAddress },
  };
  startServer({ flags, path: socketPath, bundle, listener }, more);
  listener.close();
  return await waitForShim(socketPath);
}

async function waitForShim(path: string): Promise<number> {
  using client = new TtrpcClient(await socketStream(await unixConnect(path)));
  const { shimPid } = await createClient(TaskDefinition, client).connect(
    {},
    { timeoutMs: ANSWER_TIMEOUT_MS },
  );
  return shimPid;
}
