import { describe, expect, test } from "bun:test";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { diskDrivers, findScsiDisk, lookupDisk } from "#agent/device/disk.ts";
import { placeGuestFunctions, translateEnvironment } from "#agent/device/vfio-device.ts";
import { Device } from "#proto/agent.ts";
import { TemporaryDirectory } from "../../../support/container.ts";

describe("disks", () => {
  test("are named as their driver has it", async () => {
    using sysfs = new TemporaryDirectory();
    const lookup = { timeoutMs: 0, sysfs: sysfs.path, dev: "/dev" };
    expect(diskDrivers).toEqual(["blk", "mmioblk", "scsi", "nvdimm"]);
    const wrong: [string, string][] = [
      ["scsi", "0"],
      ["scsi", "0:1:2"],
      ["scsi", "/dev/sda"],
      ["nvdimm", "/dev/vda"],
      ["nvdimm", "/dev/pmem0/../vda"],
      ["blk", "/dev/../etc/passwd"],
      ["floppy", "/dev/fd0"],
    ];
    for (const [driver, source] of wrong)
      expect([
        driver,
        source,
        await lookupDisk(driver, source, lookup).then(String, ({ code }) => code),
      ]).toEqual([driver, source, "INVALID_ARGUMENT"]);
  });

  test("on a SCSI bus are found by target and unit, and looked for", async () => {
    using sysfs = new TemporaryDirectory();
    const host = join(sysfs.path, "class/scsi_host/host2");
    mkdirSync(host, { recursive: true });
    writeFileSync(join(host, "scan"), "");
    const lookup = { timeoutMs: 1, sysfs: sysfs.path, dev: "/dev" };
    await expect(lookupDisk("scsi", "3:1", lookup)).rejects.toThrow('SCSI disk "3:1"');
    expect(readFileSync(join(host, "scan"), "utf8")).toBe("0 3 1");
    mkdirSync(join(sysfs.path, "bus/scsi/devices/2:0:3:1/block/sdb"), { recursive: true });
    mkdirSync(join(sysfs.path, "bus/scsi/devices/2:0:13:1/block/sdc"), { recursive: true });
    expect(findScsiDisk("3", "1", sysfs.path)).toBe("sdb");
    expect(findScsiDisk("3", "2", sysfs.path)).toBeUndefined();
  });
});

describe("functions handed over", () => {
  const device = (options: string[]) => Device.fromPartial({ type: "vfio-pci-gk", options });

  test("are found by their path, and the environment speaks of them", async () => {
    using sysfs = new TemporaryDirectory();
    mkdirSync(join(sysfs.path, "devices/pci0000:00/0000:00:04.0/x"), { recursive: true });
    const lookup = { timeoutMs: 1, sysfs: sysfs.path, dev: "/dev" };
    const { pairs, node } = await placeGuestFunctions(device(["0000:65:00.1=04"]), lookup);
    expect([pairs, node]).toEqual([[{ host: "0000:65:00.1", guest: "0000:00:04.0" }], undefined]);
    const environment = [
      "A=0000:65:00.1",
      "PCIDEVICE_NIC=0000:65:00.1,0000:66:00.0",
      "PCIDEVICE_NIC_INFO=0000:65:00.1",
    ];
    expect(translateEnvironment(environment, pairs)).toEqual([
      "A=0000:65:00.1",
      "PCIDEVICE_NIC=0000:00:04.0,0000:66:00.0",
      "PCIDEVICE_NIC_INFO=0000:65:00.1",
    ]);
  });

  test("that are misspelt or do not come are refused", async () => {
    const lookup = { timeoutMs: 1, sysfs: "/no/such", dev: "/dev" };
    for (const option of ["", "0000:65:00.1", "65:00.1=04", "0000:65:00.1=", "0000:65:00.1=zz"])
      await expect(placeGuestFunctions(device([option]), lookup)).rejects.toThrow("Cannot");
    await expect(placeGuestFunctions(device([]), lookup)).rejects.toThrow("0 functions");
    await expect(placeGuestFunctions(device(["0000:65:00.1=04"]), lookup)).rejects.toThrow("did not appear");
  });
});
