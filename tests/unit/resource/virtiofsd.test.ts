import { expect, test } from "bun:test";
import { buildArguments, findVirtiofsd } from "#resource/share-fs/virtiofsd.ts";

test("the program is the configured one, or the first of its places", () => {
  const there =
    (...paths: string[]) =>
    (path: string) =>
      paths.includes(path);
  expect(findVirtiofsd("/opt/v", there("/opt/v"))).toBe("/opt/v");
  expect(findVirtiofsd("", there("/usr/lib/qemu/virtiofsd"))).toBe("/usr/lib/qemu/virtiofsd");
});

test("without one the error says what to install, and where it was looked for", () => {
  expect(() => findVirtiofsd("", () => false)).toThrow("there is no virtiofsd in /usr/libexec/virtiofsd");
  expect(() => findVirtiofsd("/opt/v", () => false)).toThrow('at "/opt/v" (Debian: package virtiofsd');
});

test("a path cannot add options", () => {
  const words = buildArguments("/a,b\\c", "/s", { cache: "never", extraArgs: ["--thread-pool-size=1"] });
  expect(words).toEqual([
    "--socket-path=/s",
    "-o",
    "source=/a\\,b\\\\c",
    "-o",
    "cache=none",
    "-o",
    "xattr",
    "--thread-pool-size=1",
  ]);
});
