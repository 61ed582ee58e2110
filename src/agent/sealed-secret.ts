import { HakoError } from "#base/error.ts";
import { SEALED_PREFIX } from "#cdh/hub.ts";
import { dataHub } from "#cdh/process-hub.ts";
import { listNames, setOwner, setPermissions, statusOf } from "#linux/file.ts";
import type { Mount, Process } from "#proto/oci.ts";
import { check } from "#sys/errno.ts";
import { AT_FDCWD, type Fd, O, openat2, RESOLVE, readFd, writeFd } from "#sys/fd.ts";
import { logger } from "#telemetry/log.ts";
import { openBelow, openEntry, openRoot } from "./safe-directory.ts";

/** The form of a sealed secret; other text that begins alike is left alone. */
const SEALED = /^sealed\.[\w-]+\.[\w-]+\.[\w-]+\s*$/;
const FILE_MAX = 1024 * 1024;
const FILES_MAX = 1000;
const log = logger("sealed-secret");

export interface SecretPlace {
  readonly runDirectory: string;
  readonly containerId: string;
}

/** Replaces sealed values of the environment by the secrets inside. Throws UNAVAILABLE without a data hub. */
export async function unsealEnvironment(process: Process, signal?: AbortSignal): Promise<Process> {
  if (!process.Env.some((entry) => SEALED.test(valuePart(entry)))) return process;
  return { ...process, Env: await Promise.all(process.Env.map((entry) => unsealVariable(entry, signal))) };
}

function valuePart(entry: string): string {
  return entry.slice(entry.indexOf("=") + 1);
}

async function unsealVariable(entry: string, signal: AbortSignal | undefined): Promise<string> {
  const value = valuePart(entry);
  if (!SEALED.test(value)) return entry;
  const name = entry.slice(0, entry.length - value.length - 1);
  const secret = await dataHub().unsealSecret(Buffer.from(value), signal);
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(secret);
  } catch (cause) {
    throw new HakoError("INVALID_ARGUMENT", `Cannot set variable "${name}": its secret is no text`, {
      cause,
    });
  }
  if (text.includes("\0"))
    throw new HakoError("INVALID_ARGUMENT", `Cannot set variable "${name}": its secret has a NUL`);
  return `${name}=${text}`;
}

/**
 * Replaces volumes that hold sealed secrets by copies with the secrets opened. Such volumes are directories that the host
 * shares or copies (below `shared/containers`); the copies are in the container's own memory, so no secret reaches the
 * host. Without a data hub the volumes stay as they are.
 */
export async function unsealMounts(
  mounts: readonly Mount[],
  place: SecretPlace,
  signal?: AbortSignal,
): Promise<Mount[]> {
  if (!dataHub().isAvailable()) return [...mounts];
  const shared = `${place.runDirectory}/shared/containers/`;
  const opened: Mount[] = [];
  for (const [index, mount] of mounts.entries()) {
    const source = mount.source.startsWith(shared)
      ? await unsealVolume(mount.source, `secret-${index}`, place, signal)
      : undefined;
    opened.push(source === undefined ? mount : { ...mount, source });
  }
  return opened;
}

interface VolumeFile {
  readonly name: string;
  readonly bytes: Uint8Array;
  readonly permissions: number;
  readonly uid: number;
  readonly gid: number;
}

/** The path of the copy; undefined when nothing in the volume is sealed. */
async function unsealVolume(
  path: string,
  name: string,
  { runDirectory, containerId }: SecretPlace,
  signal: AbortSignal | undefined,
): Promise<string | undefined> {
  using entry = openEntry(runDirectory, path);
  const isDirectory = statusOf(entry).kind === "directory";
  const files = isDirectory ? readVolume(entry) : readOne(entry);
  if (!files.some(({ bytes }) => isSealed(bytes))) return undefined;
  using root = openRoot(runDirectory);
  using directory = openBelow(root, [containerId, name], { make: 0o755 });
  for (const file of files) {
    const bytes = isSealed(file.bytes) ? await dataHub().unsealSecret(file.bytes, signal) : file.bytes;
    writeCopy(directory, { ...file, bytes });
  }
  log.info("a volume of sealed secrets was opened", { volume: path, files: files.length });
  const copy = `${runDirectory}/${containerId}/${name}`;
  return isDirectory ? copy : `${copy}/${files[0]?.name}`;
}

function isSealed(bytes: Uint8Array): boolean {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  return (
    text.toString("latin1", 0, SEALED_PREFIX.length) === SEALED_PREFIX && SEALED.test(text.toString("latin1"))
  );
}

/** The files of a volume by the names that containers use; Kubernetes' own names ("..data") lead to the same files. */
function readVolume(volume: Fd): VolumeFile[] {
  using directory = openat2(volume.number, ".", { flags: O.RDONLY | O.DIRECTORY });
  const names = listNames(directory).map((name) => name.toString("utf8", 0, name.length - 1));
  return names
    .filter((name) => !name.startsWith(".."))
    .slice(0, FILES_MAX)
    .flatMap((name) => readFile(directory, name) ?? []);
}

function readOne(file: Fd): VolumeFile[] {
  using opened = openat2(AT_FDCWD, `/proc/self/fd/${file.number}`, { flags: O.RDONLY | O.NONBLOCK });
  const found = readOpened(opened, "file");
  return found ? [found] : [];
}

/** Links are followed within the volume only; what is no file, or too large for a secret, is passed over. */
function readFile(directory: Fd, name: string): VolumeFile | undefined {
  const how = { flags: O.RDONLY | O.NONBLOCK, resolve: RESOLVE.BENEATH | RESOLVE.NO_MAGICLINKS };
  try {
    using file = openat2(directory.number, name, how);
    return readOpened(file, name);
  } catch (error) {
    log.debug("an entry of a volume is passed over", { name, error });
    return undefined;
  }
}

function readOpened(file: Fd, name: string): VolumeFile | undefined {
  const { kind, size, permissions, uid, gid } = statusOf(file);
  if (kind !== "file" || size > FILE_MAX) return undefined;
  const bytes = Buffer.alloc(Number(size));
  let length = 0;
  while (length < bytes.length) {
    const count = check(readFd(file.number, bytes.subarray(length)), `Cannot read "${name}" of a volume`);
    if (count === 0) break;
    length += count;
  }
  return { name, bytes: bytes.subarray(0, length), permissions, uid, gid };
}

function writeCopy(directory: Fd, { name, bytes, permissions, uid, gid }: VolumeFile): void {
  using file = openat2(directory.number, name, {
    flags: O.WRONLY | O.CREAT | O.EXCL,
    mode: 0o600,
    resolve: RESOLVE.NO_SYMLINKS | RESOLVE.BENEATH,
  });
  for (let offset = 0; offset < bytes.length; ) {
    offset += check(writeFd(file.number, bytes.subarray(offset)), `Cannot write "${name}"`);
  }
  setOwner(file, uid, gid);
  setPermissions(file, permissions);
}
