import { HakoError } from "#base/error.ts";
import { findStatus, listDirectory, writeText } from "#linux/file.ts";
import { logger } from "#telemetry/log.ts";
import { lookupBlockDevice } from "./block-device.ts";
import { type DeviceLookup, waitForDevice } from "./hotplug.ts";

const log = logger("device");

/** The target and unit of a disk on the virtio-scsi bus as Kata writes them: "ID:LUN". */
const scsiPattern = /^(\d{1,3}):(\d{1,5})$/;
const pmemPattern = /^\/dev\/(pmem\d{1,4}(?:p\d{1,3}|s)?)$/;

/** Asks every host adapter to look for the disk: not each announces what is plugged in. */
function scanScsi(target: string, unit: string, sysfs: string): void {
  const hosts = `${sysfs}/class/scsi_host`;
  for (const host of listDirectory(hosts)) {
    try {
      writeText(`${hosts}/${host}/scan`, `0 ${target} ${unit}`);
    } catch (error) {
      log.warn("cannot scan a SCSI bus", { host, error });
    }
  }
}

/** The name below /dev of a disk on any SCSI bus, by target and unit; undefined while there is none. */
export function findScsiDisk(target: string, unit: string, sysfs: string): string | undefined {
  const devices = `${sysfs}/bus/scsi/devices`;
  const suffix = `:0:${target}:${unit}`;
  const device = listDirectory(devices).find((name) => name.endsWith(suffix) && /^\d+:/.test(name));
  return device === undefined ? undefined : listDirectory(`${devices}/${device}/block`)[0];
}

async function lookupScsiDisk(source: string, lookup: DeviceLookup, signal?: AbortSignal): Promise<string> {
  const [, target, unit] = scsiPattern.exec(source) ?? [];
  if (target === undefined || unit === undefined) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Cannot use ${JSON.stringify(source.slice(0, 120))} as a SCSI disk: write ID:LUN`,
    );
  }
  if (findScsiDisk(target, unit, lookup.sysfs) === undefined) scanScsi(target, unit, lookup.sysfs);
  const find = () => {
    const name = findScsiDisk(target, unit, lookup.sysfs);
    const node = name === undefined ? undefined : `${lookup.dev}/${name}`;
    return node !== undefined && findStatus(node)?.kind === "block" ? node : undefined;
  };
  return await waitForDevice(`SCSI disk "${source}"`, lookup.timeoutMs, find, signal);
}

async function lookupPmem(source: string, lookup: DeviceLookup, signal?: AbortSignal): Promise<string> {
  if (!pmemPattern.test(source)) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Cannot use ${JSON.stringify(source.slice(0, 120))} as persistent memory: write /dev/pmemN`,
    );
  }
  return await lookupBlockDevice(source, lookup, signal);
}

type DiskLookup = (source: string, lookup: DeviceLookup, signal?: AbortSignal) => Promise<string>;

/** How disks of each of Kata's drivers are named and found. */
const lookups: Readonly<Record<string, DiskLookup>> = {
  blk: lookupBlockDevice,
  mmioblk: lookupBlockDevice,
  scsi: lookupScsiDisk,
  nvdimm: lookupPmem,
};

/** Drivers whose storages and devices are disks. */
export const diskDrivers: readonly string[] = Object.keys(lookups);

/**
 * The device node of a disk of the VM, waiting for it to appear. `source` is a PCI path, /dev/NAME or a serial for
 * "blk" and "mmioblk", ID:LUN for "scsi", /dev/pmemN for "nvdimm". Throws INVALID_ARGUMENT, DEADLINE_EXCEEDED.
 */
export async function lookupDisk(
  driver: string,
  source: string,
  lookup: DeviceLookup,
  signal?: AbortSignal,
): Promise<string> {
  const find = Object.hasOwn(lookups, driver) ? lookups[driver] : undefined;
  if (!find)
    throw new HakoError("INVALID_ARGUMENT", `Cannot look for a disk of driver ${JSON.stringify(driver)}`);
  return await find(source, lookup, signal);
}
