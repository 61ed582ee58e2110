import { afterEach, beforeEach, describe, expect, type test } from "bun:test";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { GuestWriter } from "#resource/volume/guest-copy.ts";
import { TreeCopy } from "#resource/volume/tree-copy.ts";

/** The guest of a test: a writer, and where what it writes is to be seen. */
export interface GuestSubject extends AsyncDisposable {
  readonly writer: GuestWriter;
  /** Of the guest: paths below it may be written. */
  readonly root: string;
  /** The same as this process sees it. */
  readonly seen: string;
}

const PATIENCE_MS = 10_000;

/** Waits until `look` gives a true value. */
async function eventually(look: () => boolean): Promise<void> {
  const end = Date.now() + PATIENCE_MS;
  while (!look()) {
    if (Date.now() > end) throw new Error(`Still not after ${PATIENCE_MS} ms`);
    await Bun.sleep(20);
  }
}

/** What a copied tree has to hold, against any writer: the kubelet's way of changing a volume above all. */
export function treeCopyContract(name: string, open: () => Promise<GuestSubject>, run: typeof test): void {
  describe(`a copied tree, ${name}`, () => {
    let host: string;
    beforeEach(() => {
      host = mkdtempSync(join(tmpdir(), "hako-tree-"));
      writeVersion("..v1", { key: "one", other: "same" });
      symlinkSync("..v1", join(host, "..data"));
      symlinkSync("..data/key", join(host, "key"));
      symlinkSync("..data/other", join(host, "other"));
    });
    afterEach(() => rmSync(host, { recursive: true }));

    function writeVersion(version: string, files: Record<string, string>): void {
      mkdirSync(join(host, version), { mode: 0o750 });
      for (const [file, text] of Object.entries(files))
        writeFileSync(join(host, version, file), text, { mode: 0o640 });
    }
    /** As the kubelet's AtomicWriter does it. */
    function swap(version: string): void {
      symlinkSync(version, join(host, "..data_tmp"));
      renameSync(join(host, "..data_tmp"), join(host, "..data"));
    }
    const copyOf = (guest: GuestSubject) => new TreeCopy(host, `${guest.root}/volume`);

    run("has files, links, modes and directories", async () => {
      await using guest = await open();
      await copyOf(guest).copyTo(guest.writer);
      const seen = join(guest.seen, "volume");
      expect(readFileSync(join(seen, "key"), "utf8")).toBe("one");
      expect(readlinkSync(join(seen, "..data"))).toBe("..v1");
      expect(readlinkSync(join(seen, "other"))).toBe("..data/other");
      expect(statSync(join(seen, "..v1")).mode & 0o777).toBe(0o750);
      expect(statSync(join(seen, "..v1/key")).mode & 0o777).toBe(0o640);
    });

    run("follows a swap of the link, and never shows half of a version", async () => {
      await using guest = await open();
      const copy = copyOf(guest);
      await copy.copyTo(guest.writer);
      using _following = copy.follow(guest.writer);
      const seen = join(guest.seen, "volume");
      const states = new Set<string>();
      for (const version of ["..v2", "..v3"]) {
        writeVersion(version, { key: version, other: version });
        swap(version);
        await eventually(() => {
          states.add(
            `${readlinkSync(join(seen, "..data"))}: ${readFileSync(join(seen, "..data/key"), "utf8")}`,
          );
          return readFileSync(join(seen, "key"), "utf8") === version;
        });
        expect(readFileSync(join(seen, "other"), "utf8")).toBe(version);
      }
      expect([...states].sort()).toEqual(["..v1: one", "..v2: ..v2", "..v3: ..v3"]);
    });

    run("follows new keys, and empties what is removed", async () => {
      await using guest = await open();
      const copy = copyOf(guest);
      await copy.copyTo(guest.writer);
      using _following = copy.follow(guest.writer);
      const seen = join(guest.seen, "volume");
      writeVersion("..v2", { key: "two", fresh: "new" });
      swap("..v2");
      symlinkSync("..data/fresh", join(host, "fresh"));
      rmSync(join(host, "other"));
      rmSync(join(host, "..v1"), { recursive: true });
      await eventually(
        () => existsSync(join(seen, "fresh")) && readFileSync(join(seen, "..v1/key"), "utf8") === "",
      );
      expect(readFileSync(join(seen, "fresh"), "utf8")).toBe("new");
      // The link stays and leads nowhere.
      expect(existsSync(join(seen, "other"))).toBe(false);
    });

    run("is left alone once nobody follows any more", async () => {
      await using guest = await open();
      const copy = copyOf(guest);
      await copy.copyTo(guest.writer);
      copy.follow(guest.writer)[Symbol.dispose]();
      writeVersion("..v2", { key: "two" });
      swap("..v2");
      await Bun.sleep(400);
      expect(readlinkSync(join(guest.seen, "volume/..data"))).toBe("..v1");
    });
  });
}
