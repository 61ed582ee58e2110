import { stat } from "node:fs/promises";
import { HakoError } from "#base/error.ts";
import { prepareDirectoryVolume } from "./directory-volume.ts";
import { prepareFileVolume } from "./file-volume.ts";
import type { Volume, VolumeSpec } from "./volume.ts";

export interface VolumePlace {
  readonly containerId: string;
  /** Position among the container's volumes, from 0. */
  readonly index: number;
  /** For temporary files. */
  readonly stateDir: string;
}

/**
 * Makes a volume out of a path of the host: a regular file is copied in, a directory with `ro` is packed. Throws
 * NOT_FOUND, UNIMPLEMENTED with what can be done instead, or what packing throws.
 */
export async function prepareVolume(
  spec: VolumeSpec,
  place: VolumePlace,
  signal?: AbortSignal,
): Promise<Volume> {
  const fail = (
    code: "NOT_FOUND" | "UNIMPLEMENTED" | "PERMISSION_DENIED",
    problem: string,
    cause?: unknown,
  ) =>
    new HakoError(
      code,
      `Cannot use "${spec.hostPath}" as a volume: ${problem}`,
      cause === undefined ? {} : { cause },
    );
  const status = await stat(spec.hostPath).catch((cause: unknown) => {
    const missing =
      cause instanceof Error && "code" in cause && (cause.code === "ENOENT" || cause.code === "ENOTDIR");
    throw missing
      ? fail("NOT_FOUND", "it does not exist")
      : fail("PERMISSION_DENIED", "it cannot be looked at", cause);
  });
  if (status.isFile()) return prepareFileVolume(spec, place, status);
  if (!status.isDirectory()) throw fail("UNIMPLEMENTED", "it is neither a file nor a directory");
  if (!spec.readOnly) {
    throw fail(
      "UNIMPLEMENTED",
      `a directory can only be given read-only: write "${spec.hostPath}:${spec.guestPath}:ro"`,
    );
  }
  return prepareDirectoryVolume(spec, place, signal);
}
