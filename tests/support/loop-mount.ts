import { mkdtempSync, rmdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { runTool } from "./erofs-tools.ts";

/** Why images cannot be mounted here; undefined when they can. */
export function loopMountMissing(): string | undefined {
  if (process.getuid?.() !== 0) return "needs root";
  const probe = Bun.spawnSync(["sh", "-c", "grep -qw erofs /proc/filesystems && losetup -f"], {
    stderr: "ignore",
  });
  return probe.exitCode === 0 ? undefined : "needs loop devices and EROFS in the host's kernel";
}

/** A read-only mount of an image, undone at the end of its scope: `using mount = new LoopMount(image)`. */
export class LoopMount implements Disposable {
  readonly path = mkdtempSync(join(tmpdir(), "hako-mount-"));
  readonly #devices: string[] = [];

  /** `device` is a file that serves as the image's second device. */
  constructor(image: string, device?: string) {
    try {
      const first = this.#attach(image);
      const options = device === undefined ? "ro" : `ro,device=${this.#attach(device)}`;
      runTool("mount", "-t", "erofs", "-o", options, first, this.path);
    } catch (error) {
      this.#detach();
      throw error;
    }
  }

  #attach(file: string): string {
    const device = runTool("losetup", "--find", "--show", "--read-only", file).trim();
    this.#devices.push(device);
    return device;
  }

  #detach(): void {
    for (const device of this.#devices) runTool("losetup", "--detach", device);
    rmdirSync(this.path);
  }

  join(...names: string[]): string {
    return join(this.path, ...names);
  }

  [Symbol.dispose](): void {
    runTool("umount", this.path);
    this.#detach();
  }
}
