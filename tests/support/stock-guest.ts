import { copyFileSync, existsSync, mkdirSync, renameSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { stockKernel } from "../lab/checkout-disk.ts";
import { runCommand } from "./measure.ts";

const root = join(import.meta.dir, "../..");

/** What Debian's kernel has as modules and the contract guest needs. */
const wanted = ["virtio_mmio", "virtio_blk", "virtio_rng", "vmw_vsock_virtio_transport"];

/** Debian's kernel, which is also the one that runs in L1. */
export function stockKernelPath(): string {
  return join(root, stockKernel);
}

/**
 * An initrd for Debian's kernel, in L1: busybox loads the modules, then the contract guest takes over as PID 1. Made
 * once in `folder`, from the contract guest's own initramfs.
 */
export async function stockInitrd(contractGuest: string, folder: string): Promise<string> {
  const path = join(folder, "stock-initrd");
  if (existsSync(path)) return path;
  const tree = join(folder, "stock-tree");
  for (const part of ["bin", "modules"]) mkdirSync(join(tree, part), { recursive: true });
  await runCommand(["sh", "-c", `cd ${tree} && busybox cpio -i < ${contractGuest}`]);
  renameSync(join(tree, "init"), join(tree, "bin/contract-guest"));
  copyFileSync("/usr/bin/busybox", join(tree, "bin/busybox"));
  const modules = await modulesInOrder();
  for (const module of modules) copyFileSync(module, join(tree, "modules", basename(module)));
  const loads = modules.map((module) => `/bin/busybox insmod /modules/${basename(module)}`);
  const script = ["#!/bin/busybox sh", ...loads, "exec /bin/contract-guest", ""].join("\n");
  writeFileSync(join(tree, "init"), script, { mode: 0o755 });
  await runCommand(["sh", "-c", `cd ${tree} && busybox find . | busybox cpio -o -H newc > ${path}`]);
  return path;
}

/** Files of the modules and those that they need, each behind what it needs. */
async function modulesInOrder(): Promise<string[]> {
  const files = new Set<string>();
  for (const name of wanted) {
    const text = await runCommand(["modprobe", "--show-depends", "--ignore-install", name]);
    for (const [, file = ""] of text.matchAll(/^insmod (\S+)/gm)) files.add(file);
  }
  return [...files];
}
