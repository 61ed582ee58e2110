/**
 * The root file system of L1: a small host with QEMU, Bun and the tools that the cases use, all of it copied from
 * the machine the lab runs on. It holds nothing of this checkout but l1/, so it is made once and then cached.
 */
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { cachedFolder } from "./cache.ts";
import type { LabKernel } from "./kernel.ts";
import { findTool, makeExt4, runTool } from "./tool.ts";

/** Size of the file system; the image is sparse and what L1 writes is thrown away at its end. */
const SIZE_MIB = 2048;

/** Programs with the libraries they are linked to. */
const programs = ["qemu-system-x86_64", "ip", "tc", "kmod", "mkfs.ext4"];
/** Program names that are links to kmod. */
const kmodNames = ["modprobe", "insmod", "rmmod", "lsmod", "modinfo", "depmod"];
/** Folders that are copied as they are: firmware, option ROMs. */
const folders = ["/usr/share/qemu", "/usr/share/seabios", "/usr/lib/ipxe"];
/** A QEMU that is built in modules loads its emulator from here; with KVM it needs none. */
const qemuModules = "/usr/lib/x86_64-linux-gnu/qemu";
const qemuModule = /^accel-tcg-.*\.so$/;

const emptyFolders = [
  "dev",
  "proc",
  "sys",
  "run",
  "tmp",
  "root",
  "var/lib",
  "var/tmp",
  "mnt",
  "hako",
  "home",
];
/** Debian's merged directories. */
const links: readonly (readonly [path: string, target: string])[] = [
  ["bin", "usr/bin"],
  ["sbin", "usr/sbin"],
  ["lib", "usr/lib"],
  ["lib64", "usr/lib64"],
  ["var/run", "../run"],
];
const files: Readonly<Record<string, string>> = {
  "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
  "etc/group": "root:x:0:\nkvm:x:104:\nnogroup:x:65534:\n",
  "etc/hosts": "127.0.0.1 localhost lab\n",
  "etc/hostname": "lab\n",
  "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
  "etc/os-release": 'ID=hako-lab\nNAME="hako lab"\nPRETTY_NAME="hako lab (L1)"\n',
};

/** What short calls that may block run on; the checkout brings it along, not its libraries. */
const threadPool = join(
  import.meta.dir,
  "../../node_modules/@yuuang/ffi-rs-linux-x64-gnu/ffi-rs.linux-x64-gnu.node",
);

const ownFiles = join(import.meta.dir, "l1");

/** Path of the image; it must only be opened for reading or as the base of a snapshot. */
export async function rootDisk(kernel: LabKernel): Promise<string> {
  const copies = await filesToCopy();
  const folder = await cachedFolder("root", digest(kernel, copies), async (into) => {
    const tree = join(into, "tree");
    writeTree(tree, kernel, copies);
    await linkBusybox(tree);
    await makeExt4(tree, join(into, "root.ext4"), SIZE_MIB);
    rmSync(tree, { recursive: true });
  });
  return join(folder, "root.ext4");
}

/** Path in L1 and path here, without the kernel's modules and the folders. */
async function filesToCopy(): Promise<ReadonlyMap<string, string>> {
  const copies = new Map<string, string>();
  const withLibraries = new Set<string>();
  for (const name of programs) withLibraries.add(requireTool(name));
  for (const name of existsSync(qemuModules) ? readdirSync(qemuModules) : []) {
    if (qemuModule.test(name)) withLibraries.add(join(qemuModules, name));
  }
  for (const path of withLibraries) {
    copies.set(path, path);
    for (const library of await librariesOf(path)) copies.set(library, library);
  }
  copies.set("/usr/bin/busybox", requireTool("busybox"));
  copies.set("/usr/bin/bun", process.execPath);
  for (const program of [process.execPath, threadPool]) {
    for (const library of await librariesOf(program)) copies.set(library, library);
  }
  for (const name of ["init", "rc", "control", "shell", "inittab", "profile"]) {
    copies.set(`/etc/lab/${name}`, join(ownFiles, name));
  }
  return copies;
}

function requireTool(name: string): string {
  const path = findTool(name);
  if (path === undefined) throw new Error(`Cannot find "${name}" for the lab's root disk`);
  return path;
}

async function librariesOf(program: string): Promise<string[]> {
  const output = await runTool(["ldd", program]);
  return [...output.matchAll(/(?:^|\s)(\/\S+)/g)]
    .map((match) => match[1] ?? "")
    .filter((path) => path !== program);
}

function digest(kernel: LabKernel, copies: ReadonlyMap<string, string>): string {
  const hasher = new Bun.CryptoHasher("sha256");
  const own = readFileSync(import.meta.path);
  hasher.update(kernel.key).update(own);
  for (const [path, source] of [...copies].sort()) hasher.update(path).update(readFileSync(source));
  for (const folder of folders) {
    for (const name of new Bun.Glob("**/*").scanSync(folder)) {
      hasher.update(`${folder}/${name} ${statSync(join(folder, name)).size}`);
    }
  }
  return hasher.digest("hex").slice(0, 24);
}

function writeTree(tree: string, kernel: LabKernel, copies: ReadonlyMap<string, string>): void {
  for (const folder of ["usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "etc", ...emptyFolders]) {
    mkdirSync(join(tree, folder), { recursive: true });
  }
  for (const [path, target] of links) symlinkSync(target, join(tree, path));
  for (const [path, content] of Object.entries(files)) writeFileSync(join(tree, path), content);
  for (const [path, source] of copies) {
    mkdirSync(dirname(join(tree, path)), { recursive: true });
    copyFileSync(source, join(tree, path));
  }
  for (const folder of folders) {
    if (existsSync(folder)) cpSync(folder, join(tree, folder), { recursive: true, verbatimSymlinks: true });
  }
  cpSync(join(kernel.modulesRoot, "lib/modules"), join(tree, "usr/lib/modules"), { recursive: true });
  for (const name of kmodNames) symlinkSync("../bin/kmod", join(tree, "usr/sbin", name));
  for (const name of ["init", "rc", "control", "shell"]) chmodSync(join(tree, "etc/lab", name), 0o755);
  for (const name of ["inittab", "profile"]) symlinkSync(`lab/${name}`, join(tree, "etc", name));
}

/** Every applet of busybox whose name is still free. */
async function linkBusybox(tree: string): Promise<void> {
  const applets = (await runTool(["busybox", "--list"])).trim().split("\n");
  for (const applet of applets) {
    const places = ["usr/bin", "usr/sbin"].map((folder) => join(tree, folder, applet));
    if (places.some((place) => existsSync(place))) continue;
    symlinkSync("busybox", join(tree, "usr/bin", applet));
  }
}
