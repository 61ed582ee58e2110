import { readFile, stat } from "node:fs/promises";
import type { AgentClient } from "#agent-client/client.ts";
import { HakoError } from "#base/error.ts";
import type { SandboxSpec } from "#runtime/sandbox.ts";
import { toStorage } from "./container.ts";
import type { GuestNetwork } from "./guest-network.ts";
import type { SandboxVolumes } from "./sandbox-volumes.ts";

const MAX_POLICY_BYTES = 4 * 1024 * 1024;
/** Twice what the kernel's generator holds. */
const SEED_BYTES = 64;

export interface GuestParts {
  readonly network: GuestNetwork;
  readonly volumes: SandboxVolumes;
  /** In Rego; empty for the one that the guest image has. */
  readonly policy: string;
}

/** Gives the guest its policy, before anything that the policy may forbid; then what it is, its time, and its network. */
export async function createGuestSandbox(
  agent: AgentClient["agent"],
  { id, hostname }: SandboxSpec,
  { network, volumes, policy }: GuestParts,
  signal?: AbortSignal,
): Promise<void> {
  const options = signal ? { signal } : {};
  if (policy !== "") await agent.setPolicy({ policy }, options);
  const storages = volumes.storages.map((storage) => toStorage(storage));
  const nowUs = BigInt(Date.now()) * 1000n;
  await Promise.all([
    agent.createSandbox({ hostname, sandboxId: id, storages }, options),
    agent.setGuestDateTime({ Sec: nowUs / 1_000_000n, Usec: nowUs % 1_000_000n }, options),
    network.configureGuest(agent, signal),
    volumes.copyFiles(agent, signal),
  ]);
}

/** The configuration's `policy`: the path of a file, or the text itself. Throws INVALID_ARGUMENT. */
export async function readPolicy(setting: string): Promise<string> {
  if (!setting.startsWith("/")) return setting;
  try {
    if ((await stat(setting)).size <= MAX_POLICY_BYTES) return await readFile(setting, "utf8");
  } catch (cause) {
    throw new HakoError("INVALID_ARGUMENT", `Cannot read policy "${setting}"`, { cause });
  }
  throw new HakoError("INVALID_ARGUMENT", `Policy "${setting}" is larger than ${MAX_POLICY_BYTES} bytes`);
}

/** Before anything else happens in a clone: its random numbers must not be those of its siblings. */
export async function individualize(agent: AgentClient["agent"], signal?: AbortSignal): Promise<void> {
  const data = crypto.getRandomValues(new Uint8Array(SEED_BYTES));
  await agent.reseedRandomDev({ data }, signal ? { signal } : {});
}
