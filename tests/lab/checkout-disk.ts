/** The second disk of L1: what a test needs of this checkout, at /hako. Made anew for every start of the lab. */
import { cpSync, existsSync, mkdirSync, openSync, readFileSync, rmSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { contractInitramfs } from "../support/contract-guest.ts";
import { deviceGuestInitramfs } from "../support/device-guest.ts";
import { workFolder } from "./cache.ts";
import { labKernel } from "./kernel.ts";
import { makeExt4 } from "./tool.ts";

export const checkout = join(import.meta.dir, "../..");

const SIZE_MIB = 1024;

/** Debian's cloud kernel in L1's copy of the checkout. */
export const stockKernel = "dist/test/vmlinuz-stock";

const parts = [
  "package.json",
  "bunfig.toml",
  "tsconfig.json",
  "src",
  "tests",
  "config",
  "proto",
  "native",
  "LICENSE",
  "NOTICE",
  "dist/native",
  "dist/kernel",
  "dist/guest",
  "dist/hako",
];

/**
 * An open file that is the disk's image and has no name any more, so that it is gone with its last user. What is not
 * built yet is left out.
 */
export async function checkoutDisk(): Promise<number> {
  const work = workFolder();
  try {
    const tree = join(work, "tree");
    // Debian's kernel, which runs L1, is a guest's as well.
    mkdirSync(join(tree, "dist/test"), { recursive: true });
    cpSync((await labKernel()).image, join(tree, stockKernel));
    for (const part of [...parts, ...(await fixtures()), ...runtimePackages()]) copyPart(tree, part);
    const image = join(work, "checkout.ext4");
    await makeExt4(tree, image, SIZE_MIB);
    return openSync(image, "r");
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

/** What tests build with a compiler, which L1 lacks. Without one here their cases fail and say so. */
async function fixtures(): Promise<string[]> {
  if (!Bun.which("musl-gcc")) return [];
  return [await contractInitramfs(), await deviceGuestInitramfs()].map((path) => relative(checkout, path));
}

function copyPart(tree: string, part: string): void {
  const source = join(checkout, part);
  if (!existsSync(source)) return;
  mkdirSync(dirname(join(tree, part)), { recursive: true });
  cpSync(source, join(tree, part), { recursive: true, verbatimSymlinks: true });
}

/** Folders of the npm packages that are needed at run time, by the lock file; Bun itself is on the root disk. */
function runtimePackages(): string[] {
  const lock = JSON.parse(readFileSync(join(checkout, "package-lock.json"), "utf8")) as {
    packages: Record<string, { dev?: boolean }>;
  };
  return Object.entries(lock.packages)
    .filter(([path, { dev }]) => path !== "" && dev !== true)
    .map(([path]) => path)
    .filter((path) => path !== "node_modules/bun" && !path.startsWith("node_modules/@oven/"));
}
