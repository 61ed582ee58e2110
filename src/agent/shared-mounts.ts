import { HakoError } from "#base/error.ts";
import type { SharedMount } from "#proto/agent.ts";
import type { Spec } from "#proto/oci.ts";
import type { Container } from "./container.ts";
import type { SharedSource } from "./launcher/container-request.ts";

const SHARED_MAX = 16;
/** Where containerd and CRI-O leave the name that the pod's definition gives a container. */
const nameAnnotations = ["io.kubernetes.cri.container-name", "io.kubernetes.container.name"] as const;

/** The name of a container in its pod; "" when nobody said. */
export function containerName(spec: Spec): string {
  return nameAnnotations.map((key) => spec.Annotations[key]).find((name) => name) ?? "";
}

/**
 * The requested mounts whose destination is this container, each with the running container it comes from. Both are
 * named as in the pod's definition, or by id. Throws FAILED_PRECONDITION when the source does not run,
 * INVALID_ARGUMENT for paths that are not absolute.
 */
export function findSharedMounts(
  wanted: readonly SharedMount[],
  id: string,
  spec: Spec,
  neighbours: readonly Container[],
): SharedSource[] {
  const own = [id, containerName(spec)].filter((name) => name !== "");
  const mine = wanted.filter(({ dstCtr }) => own.includes(dstCtr));
  const action = `Cannot share mounts with container "${id}"`;
  if (wanted.length > SHARED_MAX)
    throw new HakoError("INVALID_ARGUMENT", `${action}: more than ${SHARED_MAX} are asked for`);
  return mine.map(({ name, srcCtr, srcPath, dstPath }): SharedSource => {
    if (!srcPath.startsWith("/") || !dstPath.startsWith("/"))
      throw new HakoError("INVALID_ARGUMENT", `${action}: the paths of "${name}" are not absolute`);
    const source = neighbours.find(
      (other) => other.id === srcCtr || (srcCtr !== "" && other.name === srcCtr),
    );
    if (!source || source.init.exitCode !== undefined)
      throw new HakoError(
        "FAILED_PRECONDITION",
        `${action}: container ${JSON.stringify(srcCtr)} does not run`,
      );
    return { pidfd: source.init.pidfd, source: srcPath, target: dstPath };
  });
}
