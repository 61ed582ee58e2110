/** The contract of copied trees against a writer of our own, and what needs no guest. */
import { expect, test } from "bun:test";
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { HakoError } from "#base/error.ts";
import type { GuestWriter } from "#resource/volume/guest-copy.ts";
import { TreeCopy } from "#resource/volume/tree-copy.ts";
import { type GuestSubject, treeCopyContract } from "../../contract/guest-copy.ts";

/** Writes to a directory of this host as the agent does to the guest: each entry appears whole. */
function directoryWriter(): GuestWriter {
  const install = (part: string, path: string) => {
    renameSync(part, path);
  };
  return {
    async writeFile(hostPath, path) {
      const part = `${path}.part`;
      copyFileSync(hostPath, part);
      install(part, path);
    },
    async writeText(text, path) {
      writeFileSync(`${path}.part`, text);
      install(`${path}.part`, path);
    },
    async writeDirectory(path, { mode }) {
      mkdirSync(path, { recursive: true });
      chmodSync(path, mode);
    },
    async writeLink(target, path) {
      symlinkSync(target, `${path}.part`);
      install(`${path}.part`, path);
    },
  };
}

async function openDirectory(): Promise<GuestSubject> {
  const root = mkdtempSync(join(tmpdir(), "hako-guest-"));
  return {
    writer: directoryWriter(),
    root,
    seen: root,
    async [Symbol.asyncDispose]() {
      rmSync(root, { recursive: true });
    },
  };
}

treeCopyContract("by a directory", openDirectory, test);

test("a tree that is too large is refused", async () => {
  await using guest = await openDirectory();
  const host = mkdtempSync(join(tmpdir(), "hako-tree-"));
  writeFileSync(join(host, "big"), "");
  truncateSync(join(host, "big"), 65 * 1024 * 1024);
  const copying = new TreeCopy(host, join(guest.root, "v")).copyTo(guest.writer);
  await expect(copying).rejects.toMatchObject({ code: "RESOURCE_EXHAUSTED" });
  rmSync(host, { recursive: true });
});

test("a file that changes while it is copied is copied again, but not for ever", async () => {
  await using guest = await openDirectory();
  const host = mkdtempSync(join(tmpdir(), "hako-tree-"));
  writeFileSync(join(host, "file"), "text");
  let failures = 2;
  const writer: GuestWriter = {
    ...directoryWriter(),
    async writeFile(hostPath, path) {
      if (failures-- > 0) throw new HakoError("ABORTED", "it became shorter");
      return directoryWriter().writeFile(hostPath, path);
    },
  };
  await new TreeCopy(host, join(guest.root, "v")).copyTo(writer);
  failures = 1000;
  await expect(new TreeCopy(host, join(guest.root, "w")).copyTo(writer)).rejects.toMatchObject({
    code: "ABORTED",
  });
  rmSync(host, { recursive: true });
});
