import { mkdirSync, readFileSync, symlinkSync, unlinkSync } from "node:fs";
import { dirname } from "node:path";
import { HakoError } from "#base/error.ts";
import type { SecureMount } from "#cdh/hub.ts";
import { blockDeviceSize, MappedDevice } from "#linux/device-mapper.ts";
import { formatExt4 } from "#linux/ext4/format.ts";
import { findText } from "#linux/file.ts";
import { mountFileSystem, parseMountOptions, unmount } from "#linux/mount.ts";
import { check } from "#sys/errno.ts";
import { O, openFd } from "#sys/fd.ts";
import { SYS, syscallBlocking } from "#sys/syscall.ts";
import { cryptTarget, formatVolume, type OpenVolume, openVolume } from "./luks2/volume.ts";

const KEY_FILE_MAX = 1024 * 1024;
const RANDOM_KEY_SIZE = 4096;
/** What dm-crypt takes for AES-256 in XTS mode. */
const PLAIN_KEY_SIZE = 64;

/** Gets the key that `sealed.…` or `kbs://…` stands for. */
export type KeySource = (text: string) => Promise<Uint8Array>;

/** What the options of a block device say (all of them are text). */
interface BlockOptions {
  readonly device: string;
  readonly source: "empty" | "encrypted";
  readonly target: "device" | "fileSystem";
  readonly encryption: "luks2" | "plain";
  readonly key: string | undefined;
  readonly mapperName: string;
}

/** A protected volume that is in use. */
export interface ProtectedVolume {
  close(): Promise<void>;
}

/**
 * Mounts a block device through dm-crypt: `encryptionType` luks2 (a key slot that the key opens) or plain (64 bytes that
 * are the key), `sourceType` empty (made anew) or encrypted, `targetType` fileSystem (ext4) or device (a link to it).
 */
export async function mountProtected(request: SecureMount, findKey: KeySource): Promise<ProtectedVolume> {
  if (request.volumeType !== "block-device") {
    throw new HakoError(
      "UNIMPLEMENTED",
      `Volumes of type "${request.volumeType}" are missing in this hub: only block-device is there`,
    );
  }
  const options = readOptions(request.options);
  const key = await readKey(options, findKey);
  await using undo = new AsyncDisposableStack();
  const volume = openDevice(options, key);
  try {
    const target = cryptTarget(options.device, blockDeviceSize(options.device), volume);
    const mapped = await MappedDevice.create(options.mapperName, [target], { readOnly: false, secret: true });
    undo.defer(() => mapped.detach());
    if (options.target === "device") linkDevice(mapped.path, request.mountPoint, undo);
    else await mountDevice(mapped.path, options, request, undo);
  } finally {
    volume.key.fill(0);
  }
  const held = undo.move();
  return { close: () => held.disposeAsync() };
}

function openDevice({ device, source, encryption }: BlockOptions, key: Uint8Array): OpenVolume {
  if (encryption === "luks2") return source === "empty" ? formatVolume(device, key) : openVolume(device, key);
  if (key.length !== PLAIN_KEY_SIZE) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Cannot use a key of ${key.length} bytes for plain encryption: it takes ${PLAIN_KEY_SIZE}`,
    );
  }
  return { key: Buffer.from(key), encryption: "aes-xts-plain64", offset: 0, sectorSize: 512 };
}

function linkDevice(path: string, mountPoint: string, undo: AsyncDisposableStack): void {
  mkdirSync(dirname(mountPoint), { recursive: true });
  symlinkSync(path, mountPoint);
  undo.defer(() => unlinkSync(mountPoint));
}

async function mountDevice(
  path: string,
  { source }: BlockOptions,
  request: SecureMount,
  undo: AsyncDisposableStack,
): Promise<void> {
  if (source === "empty")
    for (const { offset, data } of formatExt4(blockDeviceSize(path))) await writeAt(path, offset, data);
  const { mountPoint } = request;
  mkdirSync(mountPoint, { recursive: true });
  const { flags, data } = parseMountOptions(request.flags);
  await mountFileSystem({ source: path, target: mountPoint, fstype: "ext4", flags, data });
  undo.defer(async () => void (await unmount(mountPoint)));
}

async function writeAt(device: string, offset: bigint, data: Uint8Array): Promise<void> {
  using file = openFd(device, O.WRONLY);
  for (let done = 0; done < data.length; ) {
    const rest = data.subarray(done);
    const result = await syscallBlocking(SYS.pwrite64, file.number, rest, rest.length, offset + BigInt(done));
    done += check(result, `Cannot write to "${device}"`);
  }
}

async function readKey({ key, encryption, source }: BlockOptions, findKey: KeySource): Promise<Uint8Array> {
  if (key === undefined) {
    if (source === "encrypted")
      throw new HakoError("INVALID_ARGUMENT", 'Cannot open a protected volume: it has no "key"');
    return crypto.getRandomValues(new Uint8Array(encryption === "plain" ? PLAIN_KEY_SIZE : RANDOM_KEY_SIZE));
  }
  if (!key.startsWith("file://")) return await findKey(key);
  const bytes = readFileSync(key.slice("file://".length));
  if (bytes.length <= KEY_FILE_MAX) return bytes;
  throw new HakoError("INVALID_ARGUMENT", `Cannot use key "${key}": it has more than ${KEY_FILE_MAX} bytes`);
}

function readOptions(options: SecureMount["options"]): BlockOptions {
  const choice = <T extends string>(name: string, allowed: readonly T[], fallback?: T): T => {
    const value = options[name] ?? fallback;
    const found = allowed.find((candidate) => candidate === value);
    if (found !== undefined) return found;
    const code = name === "encryptionType" ? "UNIMPLEMENTED" : "INVALID_ARGUMENT";
    throw new HakoError(
      code,
      `Cannot use "${value ?? ""}" as ${name} of a protected volume: there is ${allowed.join(", ")}`,
    );
  };
  const encryption = choice("encryptionType", ["luks2", "plain"]);
  const source = choice("sourceType", ["empty", "encrypted"]);
  const target = choice("targetType", ["device", "fileSystem"]);
  choice("filesystemType", ["ext4"], "ext4");
  for (const name of ["mkfsOpts", "dataIntegrity"]) {
    const value = options[name];
    if (value === undefined || value === "" || value === "false") continue;
    throw new HakoError("UNIMPLEMENTED", `Option "${name}" of protected volumes is missing in this hub`);
  }
  const mapperName = options.mapperName ?? `protected-${crypto.randomUUID()}`;
  const device = options.devicePath ?? findDevice(options.deviceId);
  return { device, source, target, encryption, key: options.key, mapperName };
}

/** A device by its numbers, "MAJOR:MINOR". */
function findDevice(id: string | undefined): string {
  const sane = id !== undefined && /^\d{1,4}:\d{1,8}$/.test(id);
  const name = sane ? /^DEVNAME=(.+)$/m.exec(findText(`/sys/dev/block/${id}/uevent`) ?? "")?.[1] : undefined;
  if (name !== undefined) return `/dev/${name}`;
  throw new HakoError(
    sane ? "NOT_FOUND" : "INVALID_ARGUMENT",
    `Cannot find block device "${id ?? ""}": give deviceId MAJOR:MINOR or devicePath`,
  );
}
