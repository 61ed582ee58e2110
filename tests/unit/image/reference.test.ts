import { expect, test } from "bun:test";
import { formatReference, parseReference } from "#image/reference.ts";

test("parseReference() reads the four forms", () => {
  expect(parseReference("oci:/a/b")).toEqual({ type: "oci", path: "/a/b" });
  expect(parseReference("oci:dir:v1.2")).toEqual({ type: "oci", path: "dir", tag: "v1.2" });
  expect(parseReference("oci-archive:f.tar:x")).toEqual({ type: "oci-archive", path: "f.tar", tag: "x" });
  expect(parseReference("docker-archive:f.tar:library/busybox:1.36")).toEqual({
    type: "docker-archive",
    path: "f.tar",
    tag: "library/busybox:1.36",
  });
  expect(parseReference("rootfs:/srv/a:b")).toEqual({ type: "rootfs", path: "/srv/a:b" });
});

test("formatReference() is the inverse", () => {
  for (const text of ["oci:d", "oci:d:t", "oci-archive:f:t", "docker-archive:f", "rootfs:/x"]) {
    expect(formatReference(parseReference(text))).toBe(text);
  }
});

test("parseReference() says which forms there are for any other", () => {
  for (const text of [
    "busybox",
    "busybox:latest",
    "docker://busybox",
    "",
    ":x",
    "OCI:dir",
    "docker.io/library/x:1",
  ]) {
    expect(() => parseReference(text)).toThrow(
      /use one of oci:DIRECTORY\[:TAG\], .*rootfs:DIRECTORY; images are not pulled from registries/,
    );
  }
});

test("parseReference() refuses missing parts", () => {
  expect(() => parseReference("oci:")).toThrow(/the path is missing/);
  expect(() => parseReference("oci::tag")).toThrow(/the path is missing/);
  expect(() => parseReference("oci:dir:")).toThrow(/the tag behind the colon is missing/);
  expect(() => parseReference("rootfs:")).toThrow(/the directory is missing/);
  expect(() => parseReference("rootfs:a\0b")).toThrow(/it has a NUL inside/);
});
