import { readlinkSync } from "node:fs";
import { SYSCALLS_X86_64 } from "#linux/syscall-table/x86-64.ts";
import { DEFAULT_MOUNTS } from "#oci/default-container.ts";
import type { Linux, NamespaceType, Process, Spec } from "#oci/runtime-spec.ts";

/** What runs the same bundle. */
export type RuntimeName = "hako" | "runc" | "crun";

/** A container as the runtime specification states it, and what must be the case inside. */
export interface RuntimeCase {
  readonly name: string;
  /** What differs from the plain container. `rootfs` is the root directory's path on the runtime's side. */
  readonly change: (spec: Spec, rootfs: string) => void;
  /** Arguments of tests/fixtures/runtime-check.c. */
  readonly checks: readonly string[];
  /** Runtimes whose version here does not have it yet, and what they lack. */
  readonly without?: Partial<Record<RuntimeName, string>>;
}

export const NAMESPACES: readonly NamespaceType[] = ["pid", "mount", "ipc", "uts", "network"];
export const number = (name: string): number => SYSCALLS_X86_64.get(name) ?? -1;
export const EPERM = 1;
export const EROFS = 30;
export const O_RDWR = 2;
const old = (version: string) => `${version} does not have it`;
export const RUNC = old("runc 1.1.5");
export const CRUN = old("crun 1.8.1");

/** A container with nothing but the default mounts, root without capabilities. */
export function plainSpec(): Spec & { process: Process; linux: Linux } {
  return {
    ociVersion: "1.0.2",
    root: { path: "rootfs" },
    process: {
      user: { uid: 0, gid: 0 },
      args: ["/check"],
      env: ["PATH=/", "HOME=/"],
      cwd: "/",
      capabilities: { bounding: [], effective: [], permitted: [], inheritable: [], ambient: [] },
      noNewPrivileges: true,
    },
    hostname: "box",
    mounts: DEFAULT_MOUNTS.filter(({ type }) => type !== "cgroup"),
    linux: { namespaces: NAMESPACES.map((type) => ({ type })) },
  };
}

export function processCase(
  name: string,
  change: Partial<Process>,
  checks: readonly string[],
  more: Partial<RuntimeCase> = {},
): RuntimeCase {
  return { name, change: ({ process }) => void Object.assign(process ?? {}, change), checks, ...more };
}

export function linuxCase(
  name: string,
  change: Linux,
  checks: readonly string[],
  more: Partial<RuntimeCase> = {},
): RuntimeCase {
  return { name, change: ({ linux }) => void Object.assign(linux ?? {}, change), checks, ...more };
}

type MountEntry = NonNullable<Spec["mounts"]>[number];

export function mountCase(
  name: string,
  mounts: (rootfs: string) => readonly MountEntry[],
  checks: readonly string[],
  more: Partial<RuntimeCase> = {},
): RuntimeCase {
  return { name, change: (spec, rootfs) => void spec.mounts?.push(...mounts(rootfs)), checks, ...more };
}

export const tmpfs = (destination: string, options: string[]): MountEntry => ({
  destination,
  type: "tmpfs",
  source: "tmpfs",
  options,
});

export const namespaceLink = (kind: string) => readlinkSync(`/proc/self/ns/${kind}`);

export const capabilities = (names: string[]) => ({
  capabilities: { bounding: names, effective: names, permitted: names, inheritable: names, ambient: names },
});
