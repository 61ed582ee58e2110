import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { findDiskBySerial, lookupBlockDevice } from "#agent/device/block-device.ts";
import type { DeviceLookup } from "#agent/device/hotplug.ts";

let sysfs = "";
let lookup: DeviceLookup;

beforeAll(() => {
  sysfs = mkdtempSync(join(tmpdir(), "hako-block-"));
  for (const [name, serial] of [
    ["vda", "hako-guest"],
    ["vdb", "c1-rootfs\n"],
    ["loop0", undefined],
  ] as const) {
    mkdirSync(join(sysfs, "block", name), { recursive: true });
    if (serial !== undefined) writeFileSync(join(sysfs, "block", name, "serial"), serial);
  }
  lookup = { timeoutMs: 20, sysfs, dev: "/dev" };
});

afterAll(() => rmSync(sysfs, { recursive: true }));

describe("findDiskBySerial()", () => {
  test("compares the whole serial", () => {
    expect(findDiskBySerial("c1-rootfs", sysfs)).toBe("vdb");
    expect(findDiskBySerial("c1", sysfs)).toBeUndefined();
    expect(findDiskBySerial("hako-guest", join(sysfs, "nowhere"))).toBeUndefined();
  });
});

describe("lookupBlockDevice()", () => {
  test("refuses names that are none", async () => {
    const wrong = [
      "/dev/../etc/passwd",
      "/dev/",
      "/dev/a/b",
      "vda",
      "/dev/disk/by-id/virtio-",
      "",
      "/etc/passwd",
    ];
    for (const source of [...wrong, `/dev/disk/by-id/virtio-${"x".repeat(21)}`]) {
      await expect(lookupBlockDevice(source, lookup)).rejects.toThrow("as a block device");
    }
  });

  test("gives up after the hotplug timeout", async () => {
    const sources = ["/dev/disk/by-id/virtio-missing", "/dev/hako-no-such", "1e/1f"];
    for (const source of sources) {
      await expect(lookupBlockDevice(source, lookup)).rejects.toThrow("it did not appear within 20 ms");
    }
  });

  test("a node that is no disk does not count", async () => {
    await expect(lookupBlockDevice("/dev/null", lookup)).rejects.toThrow("did not appear");
  });

  test("ends with its signal", async () => {
    const stop = AbortSignal.abort();
    await expect(lookupBlockDevice("/dev/hako-no-such", lookup, stop)).rejects.toThrow("cancelled");
  });
});
