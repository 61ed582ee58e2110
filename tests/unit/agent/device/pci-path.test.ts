import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { findPciChild, findPciDirectory, lookupPciPath, parsePciPath } from "#agent/device/pci-path.ts";

describe("parsePciPath()", () => {
  test("slots, functions and expander bridges", () => {
    expect(parsePciPath("2")).toEqual({ rootBus: "00", slots: ["02.0"] });
    expect(parsePciPath("02/1f.7")).toEqual({ rootBus: "00", slots: ["02.0", "1f.7"] });
    expect(parsePciPath("20/00/02")).toEqual({ rootBus: "20", slots: ["00.0", "02.0"] });
    expect(parsePciPath("02/00/01")).toEqual({ rootBus: "00", slots: ["02.0", "00.0", "01.0"] });
  });

  test("anything else is none", () => {
    for (const text of ["", "20", "2/", "/2", "2.8", "xx", "../2", "1/2/3/4/5/6/7/8/9", "02:00.0"]) {
      expect(parsePciPath(text)).toBeUndefined();
    }
    expect(() => lookupPciPath("nonsense")).toThrow('Cannot use "nonsense" as a PCI path');
  });
});

describe("a device tree", () => {
  let sysfs = "";

  beforeAll(() => {
    sysfs = mkdtempSync(join(tmpdir(), "hako-pci-"));
    const bridge = join(sysfs, "devices/pci0000:00/0000:00:02.0");
    mkdirSync(join(bridge, "pci_bus/0000:01"), { recursive: true });
    mkdirSync(join(bridge, "0000:01:03.0/virtio4/block/vdb"), { recursive: true });
    mkdirSync(join(sysfs, "devices/pci0000:00/0000:00:05.0/virtio1/net/eth0"), { recursive: true });
    mkdirSync(join(sysfs, "devices/pci0000:20/0000:20:01.0/net/eth7"), { recursive: true });
  });

  afterAll(() => rmSync(sysfs, { recursive: true }));

  const at = (text: string) => lookupPciPath(text);

  test("a disk behind a bridge", () => {
    expect(findPciChild(at("02/03"), "block", sysfs)).toBe("vdb");
    expect(findPciDirectory(at("02/03"), sysfs)).toEndWith("0000:00:02.0/0000:01:03.0");
  });

  test("network interfaces, virtio or not, on any root complex", () => {
    expect(findPciChild(at("05"), "net", sysfs)).toBe("eth0");
    expect(findPciChild(at("20/01/00"), "net", sysfs)).toBeUndefined();
    expect(findPciChild({ rootBus: "20", slots: ["01.0"] }, "net", sysfs)).toBe("eth7");
  });

  test("what is not there yet is undefined", () => {
    expect(findPciChild(at("02/04"), "block", sysfs)).toBeUndefined();
    expect(findPciChild(at("05"), "block", sysfs)).toBeUndefined();
    expect(findPciChild(at("09/01"), "block", sysfs)).toBeUndefined();
  });
});
