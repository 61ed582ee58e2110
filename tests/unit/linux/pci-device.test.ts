/** PCI devices by the files that a host with one would have: what is read, and what is written in which order. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PciDevice } from "#linux/pci-device.ts";
import { openPhysicalEndpoint } from "#resource/network/endpoint/physical.ts";
import type { ScannedInterface } from "#resource/network/scan.ts";

const ADDRESS = "0000:3b:00.1";

let sysfs: string;
let directory: string;

beforeEach(() => {
  sysfs = mkdtempSync(join(tmpdir(), "hako-sysfs-"));
  directory = join(sysfs, "bus/pci/devices", ADDRESS);
  mkdirSync(directory, { recursive: true });
  for (const driver of ["ixgbe", "vfio-pci"]) {
    mkdirSync(join(sysfs, "bus/pci/drivers", driver), { recursive: true });
    writeFileSync(join(sysfs, "bus/pci/drivers", driver, "unbind"), "");
  }
  writeFileSync(join(sysfs, "bus/pci/drivers_probe"), "");
  writeFileSync(join(directory, "driver_override"), "(null)\n");
  writeFileSync(join(directory, "vendor"), "0x8086\n");
  writeFileSync(join(directory, "device"), "0x1572\n");
  mkdirSync(join(sysfs, "kernel/iommu_groups/41"), { recursive: true });
  symlinkSync("../../../../kernel/iommu_groups/41", join(directory, "iommu_group"));
  bind("ixgbe");
});
afterEach(() => rmSync(sysfs, { recursive: true }));

/** What the kernel does when a driver takes the device. */
function bind(driver: string): void {
  rmSync(join(directory, "driver"), { force: true });
  symlinkSync(`../../drivers/${driver}`, join(directory, "driver"));
}

const read = (path: string) => readFileSync(join(sysfs, "bus/pci", path), "utf8");

const found: ScannedInterface = {
  link: {
    index: 3,
    name: "eth0",
    mtu: 9000,
    flags: 1,
    operationalState: "up",
    macAddress: "02:00:5e:00:53:01",
  },
  addresses: [],
  routes: [],
  neighbors: [],
};

test("a device tells driver, IOMMU group and model", () => {
  const device = new PciDevice(ADDRESS, sysfs);
  expect([device.driver, device.iommuGroup, device.model]).toEqual(["ixgbe", 41, "8086:1572"]);
});

test("it is asked for by a whole address of a device that is there", () => {
  expect(() => new PciDevice("3b:00.1", sysfs)).toThrow(
    expect.objectContaining({ code: "INVALID_ARGUMENT" }),
  );
  expect(() => new PciDevice("0000:3b:00.1/../x", sysfs)).toThrow("as a PCI address");
  expect(() => new PciDevice("0000:3b:00.2", sysfs)).toThrow('There is no PCI device "0000:3b:00.2"');
});

test("binding to vfio-pci names the driver, takes the device from its own, and looks for the named one", () => {
  const device = new PciDevice(ADDRESS, sysfs);
  expect(() => device.bindVfio()).toThrow(
    `Cannot bind PCI device "${ADDRESS}" to vfio-pci: is the kernel module loaded?`,
  );
  expect(read("drivers/ixgbe/unbind")).toBe(ADDRESS);
  expect(read(`devices/${ADDRESS}/driver_override`)).toBe("vfio-pci\n");
  expect(read("drivers_probe")).toBe(ADDRESS);
  bind("vfio-pci");
  device.restore();
  expect(read(`devices/${ADDRESS}/driver_override`)).toBe("\n");
  expect(read("drivers/vfio-pci/unbind")).toBe(ADDRESS);
});

test("an endpoint of hardware has the device's parts, and gives it back when it cannot have it", () => {
  bind("vfio-pci");
  const device = new PciDevice(ADDRESS, sysfs);
  {
    using endpoint = openPhysicalEndpoint(device, found);
    expect(endpoint.device).toEqual({
      kind: "host-device",
      pciAddress: ADDRESS,
      iommuGroup: 41,
      macAddress: "02:00:5e:00:53:01",
      mtu: 9000,
    });
  }
  expect(read(`devices/${ADDRESS}/driver_override`)).toBe("\n");
  bind("ixgbe");
  expect(() => openPhysicalEndpoint(device, found)).toThrow("is the kernel module loaded?");
  expect(read(`devices/${ADDRESS}/driver_override`)).toBe("\n");
});

test("without an IOMMU nothing is changed", () => {
  rmSync(join(directory, "iommu_group"));
  expect(() => openPhysicalEndpoint(new PciDevice(ADDRESS, sysfs), found)).toThrow("it has no IOMMU group");
  expect(read(`devices/${ADDRESS}/driver_override`)).toBe("(null)\n");
});
