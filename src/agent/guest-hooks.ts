import { HakoError } from "#base/error.ts";
import { findStatus, listDirectory } from "#linux/file.ts";
import { type Hook, Hooks } from "#proto/oci.ts";

const EXECUTABLE = 0o111;
const HOOKS_MAX = 32;

/** Directories below the hook path, and the kind of what lies in them (Kata's documentation on guest hooks). */
const directories = { prestart: "Prestart", poststart: "Poststart", poststop: "Poststop" } as const;

function hooksIn(directory: string, kind: string): Hook[] {
  return listDirectory(directory)
    .map((name) => `${directory}/${name}`)
    .filter((path) => {
      const status = findStatus(path);
      return status?.kind === "file" && (status.permissions & EXECUTABLE) !== 0;
    })
    .map((path) => ({ Path: path, Args: [path, kind], Env: [], Timeout: 0n }));
}

/** The hooks that the guest image itself brings for every container. Throws INVALID_ARGUMENT, NOT_FOUND. */
export function findGuestHooks(path: string): Hooks {
  if (!/^(\/[^/\0]+)+\/?$/.test(path) || path.split("/").includes("..")) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Cannot look for hooks in ${JSON.stringify(path.slice(0, 200))}: write a full path`,
    );
  }
  if (findStatus(path)?.kind !== "directory")
    throw new HakoError("NOT_FOUND", `Cannot look for hooks in "${path}": there is no such directory`);
  const hooks = Hooks.fromPartial({});
  for (const [name, kind] of Object.entries(directories)) {
    hooks[kind] = hooksIn(`${path.replace(/\/$/, "")}/${name}`, name);
    if (hooks[kind].length > HOOKS_MAX)
      throw new HakoError(
        "RESOURCE_EXHAUSTED",
        `Cannot run ${hooks[kind].length} hooks of one kind: at most ${HOOKS_MAX}`,
      );
  }
  return hooks;
}

/** The hooks of a container's own and those of the guest, the latter last. */
export function mergeHooks(own: Hooks | undefined, guest: Hooks | undefined): Hooks | undefined {
  if (!guest) return own;
  const base = own ?? Hooks.fromPartial({});
  return {
    ...base,
    Prestart: [...base.Prestart, ...guest.Prestart],
    Poststart: [...base.Poststart, ...guest.Poststart],
    Poststop: [...base.Poststop, ...guest.Poststop],
  };
}
