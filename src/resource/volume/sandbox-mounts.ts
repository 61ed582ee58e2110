import { basename, isAbsolute, normalize } from "node:path";
import { HakoError } from "#base/error.ts";
import { SHARED_DIR } from "#resource/storage.ts";
import { directoryVolume } from "./directory.ts";
import { fileVolume } from "./file.ts";
import { copyOfFile } from "./guest-copy.ts";
import { mountOf } from "./prepare-volume.ts";
import type { Volume, VolumePlace } from "./volume.ts";

/** Where the guest finds them, each under its last name, as with Kata. */
const DIRECTORY = `${SHARED_DIR}/sandbox-mounts`;

const READ_ONLY = '"sandbox_bind_mounts" are read-only';

/**
 * `sandbox_bind_mounts` of the configuration: files and directories of the host that the guest sees, for its own use
 * and not its containers'. Entries are `/path` or `/path:ro`; a directory with `:rw` is refused.
 * Throws INVALID_ARGUMENT naming the entry, ALREADY_EXISTS for two with one last name.
 */
export async function prepareSandboxMounts(
  entries: readonly string[],
  place: Omit<VolumePlace, "containerId" | "index">,
  signal?: AbortSignal,
): Promise<Volume[]> {
  using stack = new DisposableStack();
  const names = new Set<string>();
  const volumes: Volume[] = [];
  for (const [index, entry] of entries.entries()) {
    const { path, readOnly } = parseEntry(entry);
    const name = basename(path);
    if (names.has(name))
      throw new HakoError(
        "ALREADY_EXISTS",
        `Cannot show "${path}" to the guest: another entry is called "${name}", too`,
      );
    names.add(name);
    const mount = mountOf({ hostPath: path, guestPath: `${DIRECTORY}/${name}`, readOnly });
    const here = { ...place, share: READ_ONLY, containerId: "sandbox", index };
    volumes.push(stack.use(await prepare(path, mount, here, signal)));
  }
  stack.move();
  return volumes;
}

async function prepare(
  path: string,
  mount: ReturnType<typeof mountOf>,
  place: VolumePlace,
  signal?: AbortSignal,
): Promise<Volume> {
  if (fileVolume.matches(mount, place)) {
    return { copy: copyOfFile(path, mount.destination), [Symbol.dispose]() {} };
  }
  if (!directoryVolume.matches(mount, place)) {
    throw new HakoError(
      "NOT_FOUND",
      `Cannot show "${path}" to the guest: it is neither a file nor a directory`,
    );
  }
  const volume = await directoryVolume.prepare(mount, place, signal);
  const { disk, storage } = volume;
  return {
    ...(disk && { disk }),
    ...(storage && { storage: { ...storage, mountPoint: mount.destination } }),
    [Symbol.dispose]: () => volume[Symbol.dispose](),
  };
}

function parseEntry(entry: string): { path: string; readOnly: boolean } {
  const match = /^(.*?)(?::(ro|rw))?$/.exec(entry);
  const path = match?.[1] ?? "";
  if (!isAbsolute(path) || normalize(path) !== path || path === "/") {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `"sandbox_bind_mounts" in the configuration has ${JSON.stringify(entry)}: expected a plain absolute path, with ":ro" or ":rw" behind it`,
    );
  }
  return { path, readOnly: match?.[2] !== "rw" };
}
