import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync, statSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { HakoError } from "#base/error.ts";
import { O, openFd } from "#sys/fd.ts";
import { lockFile, tryLock } from "#sys/file-lock.ts";

const dir = mkdtempSync(join(tmpdir(), "lock-"));
afterAll(() => rmSync(dir, { recursive: true }));
const codeOf = (work: Promise<unknown>) =>
  work.then(
    () => "no error",
    (error: HakoError) => error.code,
  );

test("lockFile() makes the file for its owner alone, and only one holder has it", async () => {
  const path = join(dir, "one");
  const first = await lockFile(path);
  expect(statSync(path).mode & 0o777).toBe(0o600);
  expect(await codeOf(lockFile(path, { timeoutMs: 30 }))).toBe("UNAVAILABLE");
  using other = openFd(path, O.RDWR);
  expect(tryLock(other.number)).toBe(false);
  first.close();
  expect(tryLock(other.number)).toBe(true);
});

test("lockFile() waits its turn, and the wait can be cancelled", async () => {
  const path = join(dir, "two");
  const first = await lockFile(path);
  const abort = new AbortController();
  const cancelled = lockFile(path, { signal: abort.signal });
  const second = lockFile(path);
  abort.abort();
  expect(await codeOf(cancelled)).toBe("CANCELLED");
  first.close();
  (await second).close();
});

test("lockFile() follows no symbolic link", async () => {
  symlinkSync("/etc/passwd", join(dir, "link"));
  expect(lockFile(join(dir, "link"))).rejects.toThrow("ELOOP");
});
