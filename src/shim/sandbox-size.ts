import { totalmem } from "node:os";
import type { Spec } from "#oci/runtime-spec.ts";

const MIB = 1024 * 1024;
/** What the guest keeps for kernel and agent on top of what containers may use. */
const GUEST_RESERVE_MIB = 64;
const CPU = "io.kubernetes.cri.sandbox-cpu-";
const MEMORY = "io.kubernetes.cri.sandbox-memory";

export interface SandboxSize {
  /** Absent: the configuration's. */
  readonly vcpus?: number;
  readonly memoryMib?: number;
}

/**
 * The machine's size for what its containers may use together: the pod's sums as the CRI plug-in notes them, or the
 * limits of the one container. Without limits the configuration decides; a machine is never made smaller than that.
 */
export function sandboxSize(
  { annotations = {}, linux }: Spec,
  defaults: { readonly vcpus: number; readonly memoryMib: number },
): SandboxSize {
  const cpu = linux?.resources?.cpu;
  const quota = number(annotations[`${CPU}quota`]) ?? cpu?.quota ?? 0;
  const period = number(annotations[`${CPU}period`]) ?? cpu?.period ?? 0;
  const memory = number(annotations[MEMORY]) ?? linux?.resources?.memory?.limit ?? 0;
  const vcpus = quota > 0 && period > 0 ? Math.ceil(quota / period) : 0;
  // What exceeds the host is a way to write "no limit".
  const memoryMib =
    memory > 0 && memory < totalmem() ? Math.ceil(memory / MIB / 2) * 2 + GUEST_RESERVE_MIB : 0;
  return {
    ...(vcpus > defaults.vcpus && { vcpus }),
    ...(memoryMib > defaults.memoryMib && { memoryMib }),
  };
}

function number(text: string | undefined): number | undefined {
  const value = Number(text ?? Number.NaN);
  return Number.isSafeInteger(value) && value > 0 ? value : undefined;
}
