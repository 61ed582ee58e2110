import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** What a host has of the kinds that a sandbox makes; two of these tell what a benchmark left behind. */
export interface Inventory {
  readonly mounts: readonly string[];
  readonly networkDevices: readonly string[];
  readonly cgroups: readonly string[];
  readonly runFiles: readonly string[];
}

/** Files that hako keeps in an empty run directory. */
const KEPT = /^(lock|name|sandbox)$/;

export function takeInventory(runDirs: readonly string[]): Inventory {
  return {
    mounts: readFileSync("/proc/self/mountinfo", "utf8")
      .split("\n")
      .map((line) => line.split(" ")[4] ?? ""),
    networkDevices: readdirSync("/sys/class/net"),
    cgroups: cgroupDirectories("/sys/fs/cgroup", 3),
    runFiles: runDirs.flatMap((dir) => filesBelow(dir)),
  };
}

/** Everything in `after` that `before` lacks, by kind; empty when nothing was left behind. */
export function compareInventories(before: Inventory, after: Inventory): string[] {
  const kinds = Object.keys(after) as (keyof Inventory)[];
  return kinds.flatMap((kind) => {
    const known = new Set(before[kind]);
    return after[kind].filter((name) => !known.has(name)).map((name) => `${kind}: ${name}`);
  });
}

function cgroupDirectories(dir: string, depth: number): string[] {
  if (depth === 0 || !existsSync(dir)) return [];
  const below = readdirSync(dir, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map((entry) => join(dir, entry.name));
  return below.flatMap((path) => [path, ...cgroupDirectories(path, depth - 1)]);
}

function filesBelow(dir: string): string[] {
  if (!existsSync(dir)) return [];
  return readdirSync(dir, { recursive: true, encoding: "utf8" }).filter((name) => !KEPT.test(name));
}
