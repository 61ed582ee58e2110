import { describe, expect, test } from "bun:test";
import { findMount, MS, parseMountOptions, parseMountTable } from "#linux/mount.ts";

describe("parseMountOptions()", () => {
  test("splits flags, propagation and the file system's own options", () => {
    const parsed = parseMountOptions(["ro", "nosuid,nodev", "rslave", "mode=755", "size=65536k"]);
    expect(parsed.flags).toBe(MS.RDONLY | MS.NOSUID | MS.NODEV);
    expect(parsed.propagation).toEqual([MS.SLAVE | MS.REC]);
    expect(parsed.data).toBe("mode=755,size=65536k");
  });

  test("a later word takes back an earlier one", () => {
    expect(parseMountOptions(["ro", "rw"]).flags).toBe(0);
    expect(parseMountOptions(["noexec", "exec", "noexec"]).flags).toBe(MS.NOEXEC);
  });

  test("rbind is a recursive bind", () => {
    expect(parseMountOptions(["rbind", "ro"]).flags).toBe(MS.BIND | MS.REC | MS.RDONLY);
  });

  test("a comma that is escaped or quoted stays in its value", () => {
    expect(parseMountOptions(["lowerdir=/a\\,b:/c", 'context="x,y",ro']).data).toBe(
      'lowerdir=/a\\,b:/c,context="x,y"',
    );
  });

  test("words of Object.prototype are options like any other", () => {
    expect(parseMountOptions(["constructor", "__proto__", "toString"])).toEqual({
      flags: 0,
      propagation: [],
      data: "constructor,__proto__,toString",
    });
  });
});

describe("parseMountTable()", () => {
  const text = [
    "22 27 0:21 / /proc rw,relatime - proc proc rw",
    "36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - ext3 /dev/root\\134x rw,errors=continue",
    "37 36 0:40 / /mnt\\0402 ro - tmpfs none rw,size=4k",
    "garbage",
    "",
  ].join("\n");

  test("reads optional fields and octal escapes", () => {
    const table = parseMountTable(text);
    expect(table).toHaveLength(3);
    expect(table[1]).toEqual({
      id: 36,
      parentId: 35,
      device: "98:0",
      root: "/mnt1",
      mountPoint: "/mnt 2",
      options: ["rw", "noatime"],
      fstype: "ext3",
      source: "/dev/root\\x",
      superOptions: ["rw", "errors=continue"],
    });
  });

  test("findMount() takes the topmost of several mounts on one place", () => {
    const table = parseMountTable(text);
    expect(findMount("/mnt 2", table)?.fstype).toBe("tmpfs");
    expect(findMount("/nowhere", table)).toBeUndefined();
  });
});
