import { HakoError } from "#base/error.ts";
import { findStatus, writeText } from "#linux/file.ts";
import type { Device } from "#proto/agent.ts";
import { AT_FDCWD } from "#sys/fd.ts";
import { cstr, SYS, syscall } from "#sys/syscall.ts";
import { type DeviceLookup, waitForDevice } from "./hotplug.ts";
import { findPciDirectory, lookupPciPath } from "./pci-path.ts";

const VFIO_DRIVER = "vfio-pci";
const FUNCTIONS_MAX = 64;
const addressPattern = /^[0-9a-f]{4}:[0-9a-f]{2}:[0-1][0-9a-f]\.[0-7]$/i;

/** A PCI function of the host, and the same one here. Addresses as DDDD:BB:SS.F. */
export interface PciPair {
  readonly host: string;
  readonly guest: string;
}

/** What became of a VFIO device: its functions, and its group's node when they are kept for user space. */
export interface VfioPlacement {
  readonly pairs: readonly PciPair[];
  readonly node?: string;
}

/** Options are "HOST-ADDRESS=PCI-PATH", one a function. */
function parseOptions(device: Device): { host: string; path: string }[] {
  if (device.options.length === 0 || device.options.length > FUNCTIONS_MAX) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Cannot hand over a device of ${device.options.length} functions`,
    );
  }
  return device.options.map((option) => {
    const [host = "", path = ""] = option.split("=");
    if (!addressPattern.test(host) || path === "") {
      throw new HakoError(
        "INVALID_ARGUMENT",
        `Cannot hand over ${JSON.stringify(option.slice(0, 80))}: write ADDRESS=PCI-PATH`,
      );
    }
    return { host: host.toLowerCase(), path };
  });
}

async function findFunction(path: string, lookup: DeviceLookup, signal?: AbortSignal): Promise<string> {
  const parsed = lookupPciPath(path);
  const find = () => findPciDirectory(parsed, lookup.sysfs);
  return await waitForDevice(`PCI device "${path}"`, lookup.timeoutMs, find, signal);
}

const addressOf = (directory: string) => directory.slice(directory.lastIndexOf("/") + 1);

function readLinkName(path: string): string | undefined {
  const buffer = Buffer.alloc(4096);
  const length = syscall(SYS.readlinkat, AT_FDCWD, cstr(path), buffer, buffer.length);
  return length < 0 ? undefined : buffer.toString("utf8", 0, length).split("/").at(-1);
}

/** Takes a function away from its driver and gives it to vfio-pci (Documentation/driver-api/vfio.rst). */
function bindToVfio(directory: string, sysfs: string): void {
  if (readLinkName(`${directory}/driver`) === VFIO_DRIVER) return;
  const address = addressOf(directory);
  try {
    writeText(`${directory}/driver_override`, VFIO_DRIVER);
    if (findStatus(`${directory}/driver`)) writeText(`${directory}/driver/unbind`, address);
    writeText(`${sysfs}/bus/pci/drivers_probe`, address);
  } catch (cause) {
    throw new HakoError("FAILED_PRECONDITION", `Cannot give PCI device "${address}" to ${VFIO_DRIVER}`, {
      cause,
    });
  }
  if (readLinkName(`${directory}/driver`) !== VFIO_DRIVER) {
    throw new HakoError(
      "FAILED_PRECONDITION",
      `Cannot give PCI device "${address}" to ${VFIO_DRIVER}: the kernel has no such driver`,
    );
  }
}

function groupOf(directory: string): string {
  const group = readLinkName(`${directory}/iommu_group`);
  if (group !== undefined && /^\d{1,6}$/.test(group)) return group;
  throw new HakoError(
    "FAILED_PRECONDITION",
    `Cannot hand over PCI device "${addressOf(directory)}": it is in no IOMMU group`,
  );
}

/** Functions that the guest's own drivers serve ("vfio-pci-gk"): they only have to be there. */
export async function placeGuestFunctions(
  device: Device,
  lookup: DeviceLookup,
  signal?: AbortSignal,
): Promise<VfioPlacement> {
  const pairs: PciPair[] = [];
  for (const { host, path } of parseOptions(device)) {
    const directory = await findFunction(path, lookup, signal);
    pairs.push({ host, guest: addressOf(directory) });
  }
  return { pairs };
}

/** Functions that the container drives by itself ("vfio-pci"): all of one group, whose node it gets. */
export async function placeVfioFunctions(
  device: Device,
  lookup: DeviceLookup,
  signal?: AbortSignal,
): Promise<VfioPlacement> {
  const pairs: PciPair[] = [];
  const groups = new Set<string>();
  for (const { host, path } of parseOptions(device)) {
    const directory = await findFunction(path, lookup, signal);
    bindToVfio(directory, lookup.sysfs);
    groups.add(groupOf(directory));
    pairs.push({ host, guest: addressOf(directory) });
  }
  const [group] = groups;
  if (group === undefined || groups.size > 1) {
    throw new HakoError(
      "FAILED_PRECONDITION",
      `Cannot hand over device "${device.containerPath}": its functions are of ${groups.size} groups`,
    );
  }
  const node = `${lookup.dev}/vfio/${group}`;
  const find = () => (findStatus(node)?.kind === "character" ? node : undefined);
  return { pairs, node: await waitForDevice(`VFIO group ${group}`, lookup.timeoutMs, find, signal) };
}

/** Variables by which device plugins tell containers the addresses of their devices. */
const variablePattern = /^(PCIDEVICE_[A-Za-z0-9_]+)=(.*)$/;

/** The environment with the host's PCI addresses replaced by those here; other variables as they are. */
export function translateEnvironment(environment: readonly string[], pairs: readonly PciPair[]): string[] {
  if (pairs.length === 0) return [...environment];
  const guestOf = new Map(pairs.map(({ host, guest }) => [host, guest]));
  return environment.map((entry) => {
    const [, name, value = ""] = variablePattern.exec(entry) ?? [];
    if (name === undefined || name.endsWith("_INFO")) return entry;
    const addresses = value.split(",").map((address) => guestOf.get(address.toLowerCase()) ?? address);
    return `${name}=${addresses.join(",")}`;
  });
}
