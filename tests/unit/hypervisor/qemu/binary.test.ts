import { afterAll, beforeAll, expect, test } from "bun:test";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { findBinary, readVersion } from "#hypervisor/qemu/binary.ts";

let directory: string;
let program: string;

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "hako-binary-"));
  program = join(directory, "qemu");
  writeFileSync(program, "#!/bin/sh\necho QEMU emulator version 99.1\necho Copyright\n");
});
afterAll(() => rmSync(directory, { recursive: true }));

test("a given path is taken only if it is an absolute path of an executable file", async () => {
  chmodSync(program, 0o644);
  expect(findBinary(program)).rejects.toMatchObject({ code: "PERMISSION_DENIED" });
  expect(findBinary(directory)).rejects.toMatchObject({ code: "PERMISSION_DENIED" });
  expect(findBinary(join(directory, "missing"))).rejects.toMatchObject({ code: "NOT_FOUND" });
  expect(findBinary("qemu")).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
  await Bun.sleep(0);
  chmodSync(program, 0o755);
  expect(await findBinary(program)).toBe(program);
});

test("the version is the first line of what the program says", async () => {
  chmodSync(program, 0o755);
  expect(await readVersion(program)).toBe("QEMU emulator version 99.1");
  expect(readVersion("/bin/false")).rejects.toMatchObject({ code: "UNAVAILABLE" });
});
