import { HakoError } from "#base/error.ts";
import { listDirectory } from "#linux/file.ts";

/** Where a PCI function hangs: its root complex ("00"), then slot and function of each bridge on the way and of itself. */
export interface PciPath {
  readonly rootBus: string;
  /** "SS.F", hexadecimal. */
  readonly slots: readonly string[];
}

/** Kata numbers the expander bridges of NUMA nodes from this bus on. */
const EXPANDER_BUS_MIN = 0x20;
const DEPTH_MAX = 8;
const SLOT_MAX = 0x1f;
const FUNCTION_MAX = 7;

function parseSlot(text: string): string | undefined {
  const match = /^([0-9a-fA-F]{1,2})(?:\.([0-7]))?$/.exec(text);
  const slot = Number.parseInt(match?.[1] ?? "", 16);
  const func = Number(match?.[2] ?? 0);
  if (!(slot <= SLOT_MAX && func <= FUNCTION_MAX)) return undefined;
  return `${slot.toString(16).padStart(2, "0")}.${func}`;
}

/**
 * Reads Kata's form: slots in hexadecimal joined by slashes, "02/00"; a path of three or more that begins with the
 * bus number of an expander bridge names its root complex first, "20/00/02". Undefined when it is none.
 */
export function parsePciPath(text: string): PciPath | undefined {
  const parts = text.split("/");
  const first = Number.parseInt(parts[0] ?? "", 16);
  const expander = parts.length >= 3 && /^[0-9a-fA-F]{2}$/.test(parts[0] ?? "") && first >= EXPANDER_BUS_MIN;
  const rootBus = expander ? (parts.shift() ?? "").toLowerCase() : "00";
  const slots = parts.flatMap((part) => parseSlot(part) ?? []);
  if (slots.length === 0 || slots.length !== parts.length || slots.length > DEPTH_MAX) return undefined;
  return { rootBus, slots };
}

/**
 * The sysfs directory of a PCI function. Undefined while it, or a bridge on the way, is not there. `sysfs` is /sys
 * but for tests.
 */
export function findPciDirectory(path: PciPath, sysfs = "/sys"): string | undefined {
  let directory = `${sysfs}/devices/pci0000:${path.rootBus}`;
  let bus = `0000:${path.rootBus}`;
  for (const [index, slot] of path.slots.entries()) {
    directory += `/${bus}:${slot}`;
    if (index === path.slots.length - 1) break;
    const next = listDirectory(`${directory}/pci_bus`)[0];
    if (next === undefined) return undefined;
    bus = next;
  }
  return listDirectory(directory).length > 0 ? directory : undefined;
}

/** The function's network interface or disk: the directory `kind` below one of its virtio devices, or its own. */
export function findPciChild(path: PciPath, kind: "block" | "net", sysfs = "/sys"): string | undefined {
  const directory = findPciDirectory(path, sysfs);
  if (directory === undefined) return undefined;
  const places = [
    directory,
    ...listDirectory(directory)
      .filter((name) => name.startsWith("virtio"))
      .map((name) => `${directory}/${name}`),
  ];
  for (const place of places) {
    const name = listDirectory(`${place}/${kind}`)[0];
    if (name !== undefined) return name;
  }
  return undefined;
}

/** As {@link parsePciPath}; throws INVALID_ARGUMENT. */
export function lookupPciPath(text: string): PciPath {
  const path = parsePciPath(text);
  if (!path)
    throw new HakoError("INVALID_ARGUMENT", `Cannot use ${JSON.stringify(text.slice(0, 80))} as a PCI path`);
  return path;
}
