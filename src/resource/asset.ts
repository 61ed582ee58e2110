import { closeSync, fstatSync, openSync, readFileSync, readSync, type Stats } from "node:fs";
import { access, mkdir, mkdtemp, open, readdir, rename, rm, stat, utimes } from "node:fs/promises";
import { join } from "node:path";
import { lookupEmbedded } from "#base/embedded.ts";
import { HakoError } from "#base/error.ts";
import { buildGuestImage, type GuestFile } from "#image/guest-image.ts";

/** Files on the host that every machine boots from. */
export interface Assets {
  readonly kernelPath: string;
  readonly initrdPath: string;
  readonly guestImagePath: string;
}

/** The running executable, whatever became of its path. */
export const EXECUTABLE_PATH = "/proc/self/exe";

/** Raised when the guest image is built differently from the same parts. */
const LAYOUT_VERSION = 1;

/** The guest image has a copy of at most this much of the executable's end. */
const COPIED_BYTES = 2 * 1024 * 1024;

/** The C library as the dynamic linker of the guest looks for it, and what the pool of threads needs beside it. */
const GUEST_LIBRARIES = [
  "libc.so.6",
  "libm.so.6",
  "libdl.so.2",
  "libpthread.so.0",
  "libgcc_s.so.1",
  "librt.so.1",
];
const GUEST_LINKER = "ld-linux-x86-64.so.2";

const DAY_MS = 24 * 3600 * 1000;
const KEEP_UNUSED_MS = 14 * DAY_MS;
/** What a start that was killed had unpacked so far; nobody takes so long. */
const KEEP_UNFINISHED_MS = 3600 * 1000;
const UNFINISHED = ".new-";

/**
 * Kernel, initramfs and guest image as files below `<stateDir>/asset/<digest>/`, unpacked on first use. The digest
 * covers all parts and of the executable what the guest image depends on. Throws FAILED_PRECONDITION when this
 * executable has nothing embedded, RESOURCE_EXHAUSTED when the disk is full.
 */
export async function ensureAssets(stateDir: string, signal?: AbortSignal): Promise<Assets> {
  const root = join(stateDir, "asset");
  const dir = join(root, assetDigest());
  const assets = {
    kernelPath: join(dir, "vmlinux"),
    initrdPath: join(dir, "initrd"),
    guestImagePath: join(dir, "guest.erofs"),
  };
  const unpacked = await stat(dir).catch(() => undefined);
  const present = await Promise.all(Object.values(assets).map(exists));
  if (unpacked && present.every((found) => found)) {
    await markUsed(dir, unpacked);
    return assets;
  }
  // Somebody has deleted a part of it.
  if (unpacked) await rm(dir, { recursive: true, force: true });
  await unpack(root, dir, signal);
  return assets;
}

function assetDigest(): string {
  const parts = ["vmlinux", "initrd", GUEST_LINKER, ...GUEST_LIBRARIES].map(
    (name) => lookupEmbedded(name).sha256,
  );
  const hasher = new Bun.CryptoHasher("sha256");
  hasher.update(JSON.stringify([LAYOUT_VERSION, ...parts]));
  hashExecutable(hasher);
  return hasher.digest("hex");
}

/** Size and last bytes of the executable: all of it that the guest image describes or copies. */
function hashExecutable(hasher: Bun.CryptoHasher): void {
  const fd = openSync(EXECUTABLE_PATH, "r");
  try {
    const { size } = fstatSync(fd);
    const bytes = new Uint8Array(Math.min(size, COPIED_BYTES));
    const length = readSync(fd, bytes, 0, bytes.length, size - bytes.length);
    hasher.update(String(size)).update(bytes.subarray(0, length));
  } finally {
    closeSync(fd);
  }
}

/** Makes the directory under another name and renames it: it exists whole or not at all. */
async function unpack(root: string, dir: string, signal?: AbortSignal): Promise<void> {
  await mkdir(root, { recursive: true, mode: 0o700 });
  await removeUnused(root);
  const fresh = await mkdtemp(join(root, UNFINISHED));
  try {
    for (const name of ["vmlinux", "initrd"]) await unpackFile(name, join(fresh, name));
    await writeGuestImage(join(fresh, "guest.erofs"), signal);
    await rename(fresh, dir);
  } catch (cause) {
    await rm(fresh, { recursive: true, force: true });
    // Another hako was faster; what it made is the same.
    if (await exists(dir)) return;
    if (cause instanceof Error && "code" in cause && cause.code === "ENOSPC") {
      throw new HakoError(
        "RESOURCE_EXHAUSTED",
        `Cannot unpack the guest's files to "${root}": the disk is full`,
        { cause },
      );
    }
    throw cause;
  }
}

/** The executable's own files can be read, but not copied by the kernel. */
async function unpackFile(name: string, path: string): Promise<void> {
  await using file = await open(path, "wx", 0o600);
  await file.writeFile(readFileSync(lookupEmbedded(name).path));
  await file.sync();
}

async function writeGuestImage(path: string, signal?: AbortSignal): Promise<void> {
  await using output = await open(path, "wx+", 0o600);
  await buildGuestImage({
    files: guestFiles(),
    executable: { path: EXECUTABLE_PATH },
    output: output.fd,
    ...(signal && { signal }),
  });
  await output.sync();
}

function guestFiles(): GuestFile[] {
  const read = (name: string) => readFileSync(lookupEmbedded(name).path);
  return [
    { path: `lib64/${GUEST_LINKER}`, bytes: read(GUEST_LINKER) },
    ...GUEST_LIBRARIES.map((name) => ({ path: `lib/${name}`, bytes: read(name) })),
  ];
}

/** The modification time of the directory says when it was last used, to the day. */
async function markUsed(dir: string, { mtimeMs }: Stats): Promise<void> {
  const now = Date.now();
  if (now - mtimeMs > DAY_MS) await utimes(dir, now / 1000, now / 1000).catch(() => {});
}

/** Files of other versions that nobody has used for long. Machines that run keep theirs open, so none is harmed. */
async function removeUnused(root: string): Promise<void> {
  for (const name of await readdir(root)) {
    const path = join(root, name);
    const { mtimeMs } = await stat(path).catch(() => ({ mtimeMs: Date.now() }));
    const kept = name.startsWith(UNFINISHED) ? KEEP_UNFINISHED_MS : KEEP_UNUSED_MS;
    if (Date.now() - mtimeMs > kept) await rm(path, { recursive: true, force: true });
  }
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
