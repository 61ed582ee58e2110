import { expect, test } from "bun:test";
import { encodeXattrs, isSupportedXattr, XATTRS_MAX, xattrCount } from "#image/erofs/xattr.ts";

const bytes = (text: string) => Buffer.from(text);

test("encodeXattrs() gives nothing for no attributes", () => {
  expect(encodeXattrs([]).length).toBe(0);
  expect(xattrCount(0)).toBe(0);
});

test("encodeXattrs() sorts by name, stores prefixes as numbers and pads entries to 4 bytes", () => {
  const area = Buffer.from(
    encodeXattrs([
      { name: "user.b", value: bytes("22") },
      { name: "security.a", value: bytes("1") },
    ]),
  );
  // header 12 · {1, 6, 1} "a" "1" + fill 2 · {1, 1, 2} "b" "22" + fill 1
  expect(area.toString("hex")).toBe(`${"00".repeat(12)}01060100613100000101020062323200`);
  expect(xattrCount(area.length)).toBe(1 + (area.length - 12) / 4);
});

test("encodeXattrs() stores an access control list under its own number without a name", () => {
  const area = encodeXattrs([{ name: "system.posix_acl_access", value: bytes("acl!") }]);
  expect([...area.subarray(12, 16)]).toEqual([0, 2, 4, 0]);
});

test("isSupportedXattr() knows the namespaces that Linux 6.1 can read from EROFS", () => {
  for (const name of ["user.x", "trusted.x", "security.selinux", "system.posix_acl_default"]) {
    expect(isSupportedXattr(name)).toBe(true);
  }
  for (const name of ["user.", "system.nfs4_acl", "com.apple.provenance", "", "usr.x"]) {
    expect(isSupportedXattr(name)).toBe(false);
  }
});

test("encodeXattrs() refuses names and values that do not fit", () => {
  const refuse = (name: string, length: number) => () =>
    encodeXattrs([{ name, value: new Uint8Array(length) }]);
  expect(refuse("other.x", 1)).toThrow(/Cannot store extended attribute "other\.x"/);
  expect(refuse(`user.${"x".repeat(256)}`, 1)).toThrow(/Cannot store extended attribute/);
  expect(refuse("user.x", 65536)).toThrow(/of 65536 bytes/);
  const many = Array.from({ length: 3 }, (_, index) => ({
    name: `user.${index}`,
    value: new Uint8Array(60000),
  }));
  expect(() => encodeXattrs(many)).toThrow(`one inode takes ${XATTRS_MAX}`);
});
