import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { runTool } from "./erofs-tools.ts";

/** Why there can be no disks here; undefined when there can. */
export function loopDiskMissing(): string | undefined {
  if (process.getuid?.() !== 0) return "needs root";
  const probe = Bun.spawnSync(["losetup", "-f"], { stderr: "ignore" });
  if (probe.exitCode !== 0) return "needs loop devices";
  const tool = ["mke2fs", "mkfs.erofs"].find((name) => !Bun.which(name));
  return tool && `needs ${tool}`;
}

/** Disks of this machine that are files: the nodes that a VM would have for its own. */
export class LoopDisks implements Disposable {
  readonly #directory = mkdtempSync(join(tmpdir(), "hako-disks-"));
  readonly #nodes: string[] = [];
  #count = 0;

  #file(size: number): string {
    const path = join(this.#directory, `disk${++this.#count}`);
    writeFileSync(path, "");
    truncateSync(path, size);
    return path;
  }

  #attach(file: string, ...options: string[]): string {
    const node = runTool("losetup", "--find", "--show", ...options, file).trim();
    this.#nodes.push(node);
    return node;
  }

  /** A disk of zeros. */
  blank(size: number): string {
    return this.#attach(this.#file(size));
  }

  /** A disk with an empty ext4. */
  ext4(size: number): string {
    const file = this.#file(size);
    runTool("mke2fs", "-q", "-t", "ext4", file);
    return this.#attach(file);
  }

  /** A disk with a read-only EROFS of these files. */
  erofs(files: Readonly<Record<string, string>>): string {
    const tree = join(this.#directory, `tree${this.#count}`);
    mkdirSync(tree, { recursive: true });
    for (const [name, content] of Object.entries(files)) writeFileSync(join(tree, name), content);
    const file = join(this.#directory, `disk${++this.#count}`);
    runTool("mkfs.erofs", "--quiet", file, tree);
    return this.#attach(file, "--read-only");
  }

  [Symbol.dispose](): void {
    for (const node of this.#nodes) runTool("losetup", "--detach", node);
    rmSync(this.#directory, { recursive: true, force: true });
  }
}
