import type { Mount } from "#oci/runtime-spec.ts";

/** Mount options that mean the same for what hako mounts in place of the host's file or directory. */
const KEPT: ReadonlySet<string> = new Set(["nosuid", "nodev", "noexec", "noatime", "nosymfollow"]);

export function isBind({ type, options = [] }: Mount): boolean {
  return type === "bind" || options.includes("bind") || options.includes("rbind");
}

export function isReadOnly({ options = [] }: Mount): boolean {
  return options.includes("ro");
}

export function keptOptions({ options = [] }: Mount): string[] {
  return options.filter((option) => KEPT.has(option));
}

/** The bind mount that shows a directory or file of the guest where the container wants it. */
export function bindFrom(source: string, mount: Mount, readOnly = isReadOnly(mount)): Mount {
  return {
    destination: mount.destination,
    type: "bind",
    source,
    options: ["rbind", "rprivate", readOnly ? "ro" : "rw", ...keptOptions(mount)],
  };
}
