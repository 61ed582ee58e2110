import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Why images cannot be checked here; undefined when they can. */
export function erofsToolsMissing(): string | undefined {
  const missing = ["fsck.erofs", "dump.erofs"].filter((tool) => !Bun.which(tool));
  return missing.length > 0 ? `needs ${missing.join(" and ")} (Debian package erofs-utils)` : undefined;
}

/** Runs a program to its end; throws with its output when it fails. */
export function runTool(...command: string[]): string {
  const { exitCode, stdout, stderr } = Bun.spawnSync(command, { env: { ...process.env, LC_ALL: "C" } });
  if (exitCode === 0) return stdout.toString();
  throw new Error(`${command.join(" ")} exited with ${exitCode}: ${stderr}${stdout}`);
}

/** Holds an image against erofs-utils, which must accept it; returns what dump.erofs says of the superblock. */
export function checkErofs(image: string, device?: string): string {
  const devices = device === undefined ? [] : [`--device=${device}`];
  runTool("fsck.erofs", ...devices, image);
  return runTool("dump.erofs", "-s", ...devices, image);
}

/** Unpacks an image with fsck.erofs into a new directory, whose removal is the caller's. */
export function extractErofs(image: string, directory: string, device?: string): void {
  const devices = device === undefined ? [] : [`--device=${device}`];
  runTool("fsck.erofs", ...devices, `--extract=${directory}`, image);
}

/** A directory for one test, removed with it: `using work = new WorkDirectory()`. */
export class WorkDirectory implements Disposable {
  readonly path = mkdtempSync(join(tmpdir(), "hako-image-"));

  join(...names: string[]): string {
    return join(this.path, ...names);
  }

  read(...names: string[]): Buffer {
    return readFileSync(this.join(...names));
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}

/** `length` bytes that differ from block to block and from file to file. */
export function pattern(length: number, seed = length): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let index = 0; index < length; index++) bytes[index] = (index * 7 + (index >> 8) * 13 + seed) & 0xff;
  return bytes;
}
