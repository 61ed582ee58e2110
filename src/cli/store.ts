import { HakoError } from "#base/error.ts";
import { findPaths } from "#config/paths.ts";
import type { ContainerState, SandboxState } from "#runtime/state.ts";
import { StateStore } from "#runtime/state-store.ts";
import { sweep } from "#runtime/sweep.ts";

/** The containers of this host, after those whose manager died were cleaned up. */
export async function openStore(): Promise<StateStore> {
  const store = new StateStore(findPaths().runDir);
  await sweep(store);
  return store;
}

/** The container that the command line shows for a sandbox: it makes one a sandbox, containerd's first one is the pod's. */
export function containerOf(state: SandboxState): ContainerState | undefined {
  const own = state.containers.find((container) => container.id === state.id);
  return own ?? (state.keeper ? state.containers[0] : undefined);
}

/**
 * Does `action` for each of the named containers and goes on after failures. Resolves to the words that worked; throws
 * the first error, its message naming the others, when any failed.
 */
export async function forEachContainer(
  references: readonly string[],
  action: (state: SandboxState, store: StateStore) => Promise<void>,
  onDone: (reference: string) => void,
): Promise<void> {
  const store = await openStore();
  const failures: HakoError[] = [];
  for (const reference of references) {
    try {
      await action(await store.lookup(reference), store);
      onDone(reference);
    } catch (error) {
      failures.push(HakoError.from(error));
    }
  }
  const [first, ...others] = failures;
  if (!first) return;
  if (others.length === 0) throw first;
  throw new HakoError(first.code, failures.map((failure) => failure.fullMessage).join("; "));
}
