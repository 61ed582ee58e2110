import { openSync } from "node:fs";
import { mkdir, mkdtemp, open, rm } from "node:fs/promises";
import { join } from "node:path";
import { HakoError } from "#base/error.ts";

/**
 * An image without a name: it goes with its last user. The descriptor is for reading alone: a monitor refuses to open a
 * file read-only by one that could write.
 */
export async function packNameless(
  parent: string,
  what: string,
  pack: (output: number) => Promise<unknown>,
): Promise<number> {
  await using file = await openNameless(parent);
  try {
    await pack(file.fd);
  } catch (cause) {
    const { code } = HakoError.from(cause);
    throw new HakoError(code, `Cannot pack ${what}`, { cause });
  }
  return openSync(`/proc/self/fd/${file.fd}`, "r");
}

async function openNameless(parent: string) {
  await mkdir(parent, { recursive: true, mode: 0o700 });
  const dir = await mkdtemp(join(parent, "new-"));
  try {
    return await open(join(dir, "image"), "wx+", 0o600);
  } finally {
    await rm(dir, { recursive: true });
  }
}
