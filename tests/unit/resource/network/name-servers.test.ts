import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { findNameServers } from "#resource/network/name-servers.ts";

let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "hako-resolv-"));
});
afterAll(() => rmSync(dir, { recursive: true }));

function find(...texts: string[]): string | undefined {
  const files = texts.map((text, index) => {
    const path = join(dir, `resolv-${index}`);
    writeFileSync(path, text);
    return path;
  });
  return findNameServers(files);
}

test("the host's servers and search list are taken, comments are not", () => {
  const text =
    "# made by hand\nsearch example.org\nnameserver 192.0.2.53\n  nameserver fd00::53\noptions ndots:2\n";
  expect(find(text)).toBe(
    "nameserver 192.0.2.53\nnameserver fd00::53\nsearch example.org\noptions ndots:2\n",
  );
});

test("servers of the host's own are left out, and looked up where the resolver has them", () => {
  expect(find("nameserver 127.0.0.53\n", "nameserver 192.0.2.54\n")).toBe("nameserver 192.0.2.54\n");
  expect(find("nameserver 127.0.0.1\nnameserver ::1\nnameserver 192.0.2.55\n")).toBe(
    "nameserver 192.0.2.55\n",
  );
  expect(find("nameserver ::1\n")).toBeUndefined();
  expect(findNameServers([join(dir, "missing")])).toBeUndefined();
});
