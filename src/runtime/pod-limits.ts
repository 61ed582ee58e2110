import { totalmem } from "node:os";
import type { Spec } from "#oci/runtime-spec.ts";
import { cpusOf, type ResourceLimits } from "#resource/machine-size.ts";

const CPU = "io.kubernetes.cri.sandbox-cpu-";
const MEMORY = "io.kubernetes.cri.sandbox-memory";

/** What a pod's containers may use together, as the CRI plug-in notes it, or the limits of the one container. */
export function podLimits({ annotations = {}, linux }: Spec): ResourceLimits {
  const cpu = linux?.resources?.cpu;
  const quota = number(annotations[`${CPU}quota`]) ?? cpu?.quota;
  const period = number(annotations[`${CPU}period`]) ?? cpu?.period;
  const cpus = cpusOf({ ...(quota !== undefined && { quota }), ...(period !== undefined && { period }) });
  const memory = number(annotations[MEMORY]) ?? linux?.resources?.memory?.limit ?? 0;
  // What exceeds the host is a way to write "no limit".
  const isLimit = memory > 0 && memory < totalmem();
  return { ...(cpus !== undefined && { cpus }), ...(isLimit && { memoryBytes: memory }) };
}

function number(text: string | undefined): number | undefined {
  const value = Number(text ?? Number.NaN);
  return Number.isSafeInteger(value) && value > 0 ? value : undefined;
}
