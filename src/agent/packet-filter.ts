import { HakoError } from "#base/error.ts";
import { findProgram, runProgram } from "./program.ts";

const directories = ["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin"];
const TIMEOUT_MS = 10_000;
/** Rules travel in one ttrpc message, which has at most 4 MiB. */
const RULES_MAX = 3 * 1024 * 1024;
/** Seconds that the programs wait for the lock of the tables, below our own limit. */
const LOCK_WAIT_S = 5;

type Work = "save" | "restore";

function lookupProgram(family: "iptables" | "ip6tables", work: Work): string {
  const name = `${family}-${work}`;
  const path = findProgram(directories.map((directory) => `${directory}/${name}`));
  if (path) return path;
  throw new HakoError(
    "FAILED_PRECONDITION",
    `Cannot ${work} the packet filter: this guest has no "${name}"; use a guest image that has it`,
  );
}

async function runTool(
  isIpv6: boolean,
  work: Work,
  input: Uint8Array,
  signal?: AbortSignal,
): Promise<Uint8Array> {
  const path = lookupProgram(isIpv6 ? "ip6tables" : "iptables", work);
  const result = await runProgram({
    path,
    args: work === "restore" ? [path, "--wait", String(LOCK_WAIT_S)] : [path],
    env: ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
    input,
    timeoutMs: TIMEOUT_MS,
    outputMax: RULES_MAX,
    signal,
  });
  if (result.code === 0) return result.stdout;
  throw new HakoError(
    work === "restore" ? "INVALID_ARGUMENT" : "INTERNAL",
    `Cannot ${work} the packet filter: "${path}" ended with ${result.code}: ${result.stderr}`,
  );
}

/** The guest's tables as iptables-save(8) prints them; ip6tables-save for IPv6. */
export async function savePacketFilter(isIpv6: boolean, signal?: AbortSignal): Promise<Uint8Array> {
  return await runTool(isIpv6, "save", new Uint8Array(), signal);
}

/** Replaces the tables that `rules` names, all or none, and returns what iptables-restore(8) printed. */
export async function restorePacketFilter(
  isIpv6: boolean,
  rules: Uint8Array,
  signal?: AbortSignal,
): Promise<Uint8Array> {
  if (rules.length > RULES_MAX) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Cannot take ${rules.length} bytes of rules: at most ${RULES_MAX}`,
    );
  }
  return await runTool(isIpv6, "restore", rules, signal);
}
