import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseGroup, parsePasswd, resolveProcessUser } from "#agent/user.ts";
import type { StringUser } from "#proto/agent.ts";
import { Process } from "#proto/oci.ts";
import { O, openFd } from "#sys/fd.ts";

const passwd = [
  "root:x:0:0:root:/root:/bin/sh",
  "web:x:33:100::/var/www:/bin/false",
  "1000:x:7:8::/odd:",
  "broken line",
  "negative:x:-1:0::/:",
  "huge:x:4294967295:0::/:",
].join("\n");
const group = [
  "root:x:0:",
  "users:x:100:web,root",
  "disk:x:6:root,web",
  "docker:x:999:web",
  "bad:x:y:web",
].join("\n");

let root = "";

beforeAll(() => {
  root = mkdtempSync(join(tmpdir(), "hako-user-"));
  mkdirSync(join(root, "etc"));
  writeFileSync(join(root, "etc/passwd"), passwd);
  writeFileSync(join(root, "etc/group"), group);
});

afterAll(() => rmSync(root, { recursive: true }));

function resolve(user: Partial<Process["User"]>, stringUser?: Partial<StringUser>, directory = root) {
  using fd = openFd(directory, O.PATH | O.DIRECTORY);
  const process = Process.fromPartial({ Args: ["x"], User: { ...user } as object });
  const named = stringUser && { uid: "", gid: "", additionalGids: [], ...stringUser };
  const resolved = resolveProcessUser(process, fd, named);
  const { UID, GID, AdditionalGids } = resolved.User ?? { UID: -1, GID: -1, AdditionalGids: [] };
  return { ids: [UID, GID, AdditionalGids], env: resolved.Env };
}

describe("parsing", () => {
  test("lines that are none are passed over", () => {
    expect(parsePasswd(passwd).map(({ name }) => name)).toEqual(["root", "web", "1000"]);
    expect(parseGroup(group).map(({ name }) => name)).toEqual(["root", "users", "disk", "docker"]);
  });
});

describe("resolveProcessUser()", () => {
  test("numbers stay as they are, HOME comes from the entry", () => {
    expect(resolve({ UID: 33, GID: 5, AdditionalGids: [1] })).toEqual({
      ids: [33, 5, [1]],
      env: ["HOME=/var/www"],
    });
    expect(resolve({ UID: 4711 })).toEqual({ ids: [4711, 0, []], env: ["HOME=/"] });
  });

  test("a name brings its group and the groups it is a member of", () => {
    expect(resolve({ Username: "web" }).ids).toEqual([33, 100, [6, 999]]);
  });

  test("a stated group replaces the user's own", () => {
    expect(resolve({ Username: "web:disk" }).ids).toEqual([33, 6, []]);
    expect(resolve({ Username: "web:12" }).ids).toEqual([33, 12, []]);
    expect(resolve({ Username: ":disk" }).ids).toEqual([0, 6, []]);
  });

  test("a number is looked up too, but a name of the same digits wins", () => {
    expect(resolve({ Username: "33" }).ids).toEqual([33, 100, [6, 999]]);
    expect(resolve({ Username: "1000" }).ids).toEqual([7, 8, []]);
    expect(resolve({ Username: "55" }).ids).toEqual([55, 0, []]);
  });

  test("the request's string user goes first", () => {
    const named = { uid: "web", additionalGids: ["docker", "77"] };
    expect(resolve({ UID: 5, Username: "root" }, named).ids).toEqual([33, 100, [6, 999, 77]]);
    expect(resolve({ UID: 5, Username: "web" }, {}).ids).toEqual([0, 0, [100, 6]]);
  });

  test("unknown names are errors", () => {
    expect(() => resolve({ Username: "nobody" })).toThrow('Cannot find user "nobody" in the image');
    expect(() => resolve({ Username: "web:nogroup" })).toThrow('Cannot find group "nogroup"');
    expect(() => resolve({ Username: "4294967295" })).toThrow('Cannot find user "4294967295"');
  });

  test("a HOME that is set stays", () => {
    using fd = openFd(root, O.PATH | O.DIRECTORY);
    const process = Process.fromPartial({ Args: ["x"], Env: ["HOME=/x"], User: { Username: "web" } });
    expect(resolveProcessUser(process, fd).Env).toEqual(["HOME=/x"]);
  });
});

describe("a hostile root file system", () => {
  function makeRoot(prepare: (etc: string) => void): string {
    const directory = mkdtempSync(join(tmpdir(), "hako-user-hostile-"));
    mkdirSync(join(directory, "etc"));
    prepare(join(directory, "etc"));
    return directory;
  }

  test("an absolute link stays inside", () => {
    const directory = makeRoot((etc) => {
      symlinkSync("/etc/real", join(etc, "passwd"));
      writeFileSync(join(etc, "real"), "inside:x:9:9::/:");
    });
    expect(resolve({ Username: "inside" }, undefined, directory).ids).toEqual([9, 9, []]);
    rmSync(directory, { recursive: true });
  });

  test("a link out of it, and into /proc, leads nowhere", () => {
    for (const target of ["../../../../../../etc/passwd", "/proc/self/root/etc/passwd"]) {
      const directory = makeRoot((etc) => symlinkSync(target, join(etc, "passwd")));
      expect(() => resolve({ Username: "root" }, undefined, directory)).toThrow();
      rmSync(directory, { recursive: true });
    }
  });

  test("a huge file, a directory and a missing file", () => {
    const huge = makeRoot((etc) => {
      writeFileSync(join(etc, "passwd"), "");
      truncateSync(join(etc, "passwd"), 4 * 1024 ** 3);
    });
    expect(() => resolve({ Username: "root" }, undefined, huge)).toThrow("more than 1048576 bytes");
    const wrong = makeRoot((etc) => mkdirSync(join(etc, "passwd")));
    expect(() => resolve({ Username: "root" }, undefined, wrong)).toThrow("it is no regular file");
    const missing = makeRoot(() => {});
    expect(resolve({ Username: "12" }, undefined, missing)).toEqual({ ids: [12, 0, []], env: ["HOME=/"] });
    for (const directory of [huge, wrong, missing]) rmSync(directory, { recursive: true });
  });
});
