import { lstatSync, readlinkSync, realpathSync, renameSync, rmSync, symlinkSync } from "node:fs";
import { basename, join } from "node:path";
import { HakoError } from "#base/error.ts";

export type LinkChange = "made" | "kept" | "removed" | "absent";

/** The shim under the name by which containerd looks for it. */
export function linkPath(directory: string, runtime: "hako" | "kata"): string {
  return join(directory, `containerd-shim-${runtime}-v2`);
}

/** Makes a link to the executable. Throws ALREADY_EXISTS for what hako did not put there. */
export function installLink(path: string, executable: string): LinkChange {
  const target = findTarget(path);
  if (target === executable) return "kept";
  if (target !== undefined && !isOurs(target)) throw notOurs(path);
  const fresh = `${path}.new`;
  rmSync(fresh, { force: true });
  symlinkSync(executable, fresh);
  renameSync(fresh, path);
  return "made";
}

export function removeLink(path: string): LinkChange {
  const target = findTarget(path);
  if (target === undefined) return "absent";
  if (!isOurs(target)) throw notOurs(path);
  rmSync(path);
  return "removed";
}

/** What a link says; undefined when nothing is there. Throws ALREADY_EXISTS for something that is no link. */
function findTarget(path: string): string | undefined {
  const status = lstatSync(path, { throwIfNoEntry: false });
  if (!status) return undefined;
  if (status.isSymbolicLink()) return readlinkSync(path);
  throw notOurs(path);
}

function isOurs(target: string): boolean {
  return basename(target) === "hako" || target === ownExecutable();
}

export function ownExecutable(): string {
  return realpathSync("/proc/self/exe");
}

function notOurs(path: string): HakoError {
  return new HakoError("ALREADY_EXISTS", `"${path}" is there and is not hako's`);
}
