import { expect, test } from "bun:test";
import { closeSync, ftruncateSync, openSync, rmSync, writeSync } from "node:fs";
import { join } from "node:path";
import { formatExt4 } from "#linux/ext4/format.ts";
import { TemporaryDirectory } from "../../support/container.ts";
import { runTool } from "../../support/erofs-tools.ts";
import { testIf } from "../../support/skip.ts";

const checkTest = testIf(Bun.which("e2fsck") !== null, "needs e2fsck (Debian package e2fsprogs)");

/** Sizes around the edges: one group, a whole number of groups, a rest too small for a group, many groups. */
const SIZES_MIB = [1, 5, 127, 128, 129, 1000, 20_000];

checkTest(
  "e2fsck finds nothing to correct, whatever the size and whatever was there before",
  () => {
    using directory = new TemporaryDirectory();
    for (const mib of SIZES_MIB) {
      const path = join(directory.path, "disk");
      const file = openSync(path, "w");
      ftruncateSync(file, mib << 20);
      // What a disk held before must not show: the first megabyte is not zero.
      writeSync(file, Buffer.alloc(mib === 1 ? 65_536 : 1 << 20, 0xa5), 0);
      let written = 0;
      for (const { offset, data } of formatExt4(BigInt(mib) << 20n, "scratch")) {
        writeSync(file, data, 0, data.length, Number(offset));
        written += data.length;
      }
      closeSync(file);
      expect(runTool("e2fsck", "-fn", path)).toContain("10/");
      expect(written).toBeLessThan(4 << 20);
      rmSync(path);
    }
  },
  60_000,
);

test("sizes that cannot be are refused", () => {
  for (const size of [0n, 4096n, 1n << 50n])
    expect(() => [...formatExt4(size)]).toThrow("Cannot make a file system");
});
