import { HakoError } from "#base/error.ts";
import { type MountEntry, readMountTable } from "#linux/mount.ts";

/** One mounted hierarchy of version 1: a controller, or several together, or one that has but a name (`name=systemd`). */
export interface LegacyHierarchy {
  readonly controllers: readonly string[];
  readonly directory: string;
}

/**
 * The cgroups of a host. Version 2 alone has `unified` with controllers; version 1 has `legacy`; hybrid has both, and
 * the controllers are those of `legacy`.
 */
export interface CgroupLayout {
  readonly unified?: string;
  readonly legacy: readonly LegacyHierarchy[];
}

/** As the mount table has it. Throws FAILED_PRECONDITION on a host without cgroups. */
export function findCgroupLayout(mounts: readonly MountEntry[] = readMountTable()): CgroupLayout {
  const unified = mounts.find(({ fstype, root }) => fstype === "cgroup2" && root === "/")?.mountPoint;
  const legacy = mounts
    .filter(({ fstype, root }) => fstype === "cgroup" && root === "/")
    .map(({ superOptions, mountPoint }) => ({
      controllers: superOptions.filter((option) => !FLAGS.has(option)),
      directory: mountPoint,
    }));
  if (unified === undefined && legacy.length === 0) {
    throw new HakoError("FAILED_PRECONDITION", "Cannot find the host's cgroups: none are mounted");
  }
  return { ...(unified !== undefined && { unified }), legacy };
}

/** Options of the mount that are no controllers. */
const FLAGS: ReadonlySet<string> = new Set([
  "rw",
  "ro",
  "xattr",
  "clone_children",
  "noprefix",
  "cpuset_v2_mode",
]);

/**
 * The path below a hierarchy's root that a runtime specification's `cgroupsPath` stands for: a path as it is, or
 * systemd's `SLICE:PREFIX:NAME`, whose slices are nested by the dashes in their names. Throws INVALID_ARGUMENT.
 */
export function resolveCgroupPath(text: string): string {
  const parts = text.split(":");
  if (parts.length === 3 && !text.startsWith("/")) {
    const [slice = "", prefix = "", name = ""] = parts;
    return checkPath(`${expandSlice(slice || "system.slice")}/${unitName(prefix, name)}`, text);
  }
  return checkPath(text.startsWith("/") ? text : `/${text}`, text);
}

/** `a-b.slice` lies in `a.slice` (systemd.slice(5)). */
function expandSlice(slice: string): string {
  if (!slice.endsWith(".slice") || slice.includes("/")) {
    throw new HakoError("INVALID_ARGUMENT", `Cannot use "${slice}" as a slice of cgroups`);
  }
  const words = slice.slice(0, -".slice".length).split("-");
  if (words.length === 1 && words[0] === "") return "";
  if (words.some((word) => word === "")) {
    throw new HakoError("INVALID_ARGUMENT", `Cannot use "${slice}" as a slice of cgroups`);
  }
  return words.map((_, index) => `/${words.slice(0, index + 1).join("-")}.slice`).join("");
}

function unitName(prefix: string, name: string): string {
  if (name.endsWith(".slice")) return name;
  return `${prefix === "" ? "" : `${prefix}-`}${name}.scope`;
}

function checkPath(path: string, text: string): string {
  const names = path.split("/").slice(1);
  const bad = names.some((name) => name === "" || name === "." || name === ".." || name.length > 255);
  if (!bad && !/[\0\n]/.test(path)) return path;
  throw new HakoError(
    "INVALID_ARGUMENT",
    `Cannot use ${JSON.stringify(text.slice(0, 200))} as the path of a cgroup`,
  );
}
