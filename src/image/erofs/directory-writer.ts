import { HakoError } from "#base/error.ts";
import { type Dirent, directorySize, encodeDirectory, sortedNames } from "./directory-data.ts";
import { BLOCK_SIZE, DIRENT_TYPE, LAYOUT } from "./format.ts";
import type { ImageOutput } from "./image-output.ts";
import { ErofsDirectory } from "./inode.ts";
import { draftInode, type InodeDraft, writeInode } from "./inode-writer.ts";
import { MetadataArea, type MetadataPlace } from "./metadata-area.ts";

interface Plan {
  readonly directory: ErofsDirectory;
  readonly parent: Plan | undefined;
  readonly names: readonly string[];
  readonly draft: InodeDraft;
  /** The last block lies behind the inode. */
  readonly inline: boolean;
  place: MetadataPlace | undefined;
}

/**
 * Writes the directories of a tree, parents first. All of them get their places before the first is filled in,
 * because "." and ".." and the entries of subdirectories name inodes of directories.
 */
export class DirectoryWriter {
  readonly #output: ImageOutput;
  readonly #area: MetadataArea;
  readonly #buildTime: number;
  #nextIno: number;
  readonly #plans = new Map<ErofsDirectory, Plan>();

  constructor(output: ImageOutput, options: { buildTime: number; firstIno: number }) {
    this.#output = output;
    this.#area = new MetadataArea(output, { retain: true });
    this.#buildTime = options.buildTime;
    this.#nextIno = options.firstIno;
  }

  /**
   * Writes the tree; the root's inode goes to `rootPlace`, which has `rootRoom` bytes. Returns how many
   * directories there are. Throws RESOURCE_EXHAUSTED when the root's attributes do not fit.
   */
  async write(root: ErofsDirectory, rootPlace: MetadataPlace, rootRoom: number): Promise<number> {
    const plans = this.#planAll(root, rootRoom);
    for (const [index, plan] of plans.entries()) {
      plan.place = index === 0 ? rootPlace : await this.#area.place(plan.draft.headSize + inlineSize(plan));
    }
    this.#area.trim();
    for (const plan of plans) await this.#fill(plan);
    await this.#output.flush();
    await this.#area.flush();
    return plans.length;
  }

  #planAll(root: ErofsDirectory, rootRoom: number): Plan[] {
    const plans: Plan[] = [];
    const waiting: { directory: ErofsDirectory; parent: Plan | undefined }[] = [
      { directory: root, parent: undefined },
    ];
    for (let item = waiting.pop(); item; item = waiting.pop()) {
      const plan = this.#plan(item.directory, item.parent, plans.length === 0 ? rootRoom : BLOCK_SIZE);
      plans.push(plan);
      this.#plans.set(item.directory, plan);
      for (const name of plan.names.toReversed()) {
        const child = item.directory.children.get(name);
        if (child instanceof ErofsDirectory) waiting.push({ directory: child, parent: plan });
      }
    }
    return plans;
  }

  #plan(directory: ErofsDirectory, parent: Plan | undefined, room: number): Plan {
    const names = sortedNames(directory.children.keys());
    const draft = draftInode("directory", directory.attributes, {
      size: directorySize(names),
      links: 2 + countDirectories(directory),
      buildTime: this.#buildTime,
    });
    const tail = draft.size % BLOCK_SIZE;
    if (!parent && draft.headSize > room) {
      throw new HakoError(
        "RESOURCE_EXHAUSTED",
        `Cannot store ${draft.xattrs.length} bytes of extended attributes on the root directory: ${room} are free`,
      );
    }
    const inline = tail > 0 && draft.headSize + tail <= room;
    return { directory, parent, names, draft, inline, place: undefined };
  }

  async #fill(plan: Plan): Promise<void> {
    const place = placeOf(plan);
    const firstBlock = this.#output.position / BLOCK_SIZE;
    const ownBlocks = plan.inline ? Math.floor(plan.draft.size / BLOCK_SIZE) : Number.POSITIVE_INFINITY;
    let blocks = 0;
    for (const block of encodeDirectory(this.#entries(plan))) {
      if (blocks < ownBlocks) {
        await this.#output.append(block);
        await this.#output.padToBlock();
        blocks++;
      } else {
        place.bytes.set(block, place.offset + plan.draft.headSize);
      }
    }
    writeInode(place, plan.draft, {
      layout: plan.inline ? LAYOUT.flatInline : LAYOUT.flatPlain,
      union: blocks > 0 ? firstBlock : 0,
      ino: this.#nextIno++,
    });
  }

  #entries(plan: Plan): Dirent[] {
    return plan.names.map((name) => {
      if (name === ".") return this.#directoryEntry(name, plan);
      if (name === "..") return this.#directoryEntry(name, plan.parent ?? plan);
      const child = plan.directory.children.get(name);
      if (child instanceof ErofsDirectory) return this.#directoryEntry(name, this.#plans.get(child));
      if (!child) throw new HakoError("INTERNAL", "Cannot write directory: its entries changed meanwhile");
      return { name, nid: child.nid, type: DIRENT_TYPE[child.type] };
    });
  }

  #directoryEntry(name: string, plan: Plan | undefined): Dirent {
    return { name, nid: placeOf(plan).nid, type: DIRENT_TYPE.directory };
  }
}

function placeOf(plan: Plan | undefined): MetadataPlace {
  if (!plan?.place) throw new HakoError("INTERNAL", "Cannot write directory: it has no place in the image");
  return plan.place;
}

function inlineSize(plan: Plan): number {
  return plan.inline ? plan.draft.size % BLOCK_SIZE : 0;
}

function countDirectories(directory: ErofsDirectory): number {
  let count = 0;
  for (const child of directory.children.values()) if (child instanceof ErofsDirectory) count++;
  return count;
}
