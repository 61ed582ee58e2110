import { HakoError } from "#base/error.ts";
import { findStatus } from "./file.ts";

export interface DeviceNumber {
  /** "b" block, "c" character, as in the OCI runtime specification. */
  readonly type: "b" | "c";
  readonly major: number;
  readonly minor: number;
}

/** The number of the device that a node stands for. FAILED_PRECONDITION when the path is no device node. */
export function deviceNumber(path: string): DeviceNumber {
  const status = findStatus(path);
  if (!status) throw new HakoError("NOT_FOUND", `Cannot find device "${path}"`);
  const { kind, major, minor } = status;
  if (kind === "block") return { type: "b", major, minor };
  if (kind === "character") return { type: "c", major, minor };
  throw new HakoError("FAILED_PRECONDITION", `Cannot use "${path}": it is no device`);
}
