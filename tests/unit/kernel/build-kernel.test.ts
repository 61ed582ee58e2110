import { expect } from "bun:test";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buildKernel } from "../../../config/kernel/kernel.ts";
import { testIf } from "../../support/skip.ts";

const tools = ["tar", "xz", "make", "gcc", "flex", "bison", "bc"];
const buildTest = testIf(
  tools.every((tool) => Bun.which(tool) !== null),
  `needs ${tools.join(", ")}`,
);

async function buildFrom(source: Uint8Array | undefined, signal?: AbortSignal) {
  const directory = mkdtempSync(join(tmpdir(), "hako-build-kernel-"));
  const sourceTar = join(directory, "source.tar.xz");
  const [workDir, outDir] = [join(directory, "work"), join(directory, "out")];
  if (source) writeFileSync(sourceTar, source);
  try {
    const options = { sourceTar, workDir, outDir, jobs: 1, onProgress() {} };
    await buildKernel(signal ? { ...options, signal } : options);
    return { error: undefined, log: "", stamped: false };
  } catch (error) {
    const log = join(workDir, "build.log");
    return {
      error,
      log: existsSync(log) ? readFileSync(log, "utf8") : "",
      stamped: existsSync(join(workDir, "source.stamp")),
    };
  } finally {
    rmSync(directory, { recursive: true });
  }
}

buildTest("buildKernel() names a source that is not there", async () => {
  const { error } = await buildFrom(undefined);
  expect(error).toMatchObject({ code: "NOT_FOUND" });
});

buildTest(
  "buildKernel() ends at a damaged source, keeps its words and does not take it for unpacked",
  async () => {
    const { error, log, stamped } = await buildFrom(Buffer.from("this is no archive"));
    expect(error).toMatchObject({ code: "INTERNAL" });
    expect((error as Error).message).toStartWith('Cannot unpack the kernel source: "tar" exited with');
    expect(log).toContain("xz");
    expect(stamped).toBe(false);
  },
);

buildTest("buildKernel() ends when its signal says so", async () => {
  const { error } = await buildFrom(Buffer.from("this is no archive"), AbortSignal.abort());
  expect(error).toMatchObject({ code: "CANCELLED" });
});
