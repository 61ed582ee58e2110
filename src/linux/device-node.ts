import { type Stats, statSync } from "node:fs";
import { HakoError } from "#base/error.ts";

export interface DeviceNumber {
  /** "b" block, "c" character, as in the OCI runtime specification. */
  readonly type: "b" | "c";
  readonly major: number;
  readonly minor: number;
}

/** Splits a dev_t as user space sees it (glibc's gnu_dev_major and gnu_dev_minor). */
export function splitDevice(dev: number): { major: number; minor: number } {
  const wide = BigInt(dev);
  const major = ((wide >> 8n) & 0xfffn) | ((wide >> 32n) & 0xfffff000n);
  const minor = (wide & 0xffn) | ((wide >> 12n) & 0xffffff00n);
  return { major: Number(major), minor: Number(minor) };
}

/** The number of the device that a node stands for. FAILED_PRECONDITION when the path is no device node. */
export function deviceNumber(path: string): DeviceNumber {
  let stats: Stats;
  try {
    stats = statSync(path);
  } catch (cause) {
    throw new HakoError("NOT_FOUND", `Cannot find device "${path}"`, { cause });
  }
  const type = stats.isBlockDevice() ? "b" : stats.isCharacterDevice() ? "c" : undefined;
  if (!type) throw new HakoError("FAILED_PRECONDITION", `Cannot use "${path}": it is no device`);
  return { type, ...splitDevice(stats.rdev) };
}
