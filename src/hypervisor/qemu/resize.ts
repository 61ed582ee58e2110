import { HakoError } from "#base/error.ts";
import { MEMORY_DEVICE_ID } from "./command-line.ts";
import type { QmpClient } from "./qmp.ts";

const MIB = 1024 * 1024;
/** How long nothing may change before a guest counts as unwilling; an emulated one on a busy host is slow. */
const QUIET_MS = 5000;
/** How long a guest may take in all. */
const SETTLE_TIMEOUT_MS = 30_000;
const POLL_MS = 10;

/** An element of query-hotpluggable-cpus. */
interface CpuSlot {
  readonly type: string;
  readonly props: Readonly<Record<string, number>>;
  /** Only where a CPU is plugged. */
  readonly "qom-path"?: string;
}

/** The id of a CPU that was plugged at run time; CPUs of the start have none and stay. */
function cpuId(slot: CpuSlot): string {
  return `vcpu-${Object.entries(slot.props)
    .sort(([left], [right]) => left.localeCompare(right))
    .map(([, value]) => value)
    .join("-")}`;
}

async function cpuSlots(qmp: QmpClient, signal?: AbortSignal): Promise<CpuSlot[]> {
  return (await qmp.execute("query-hotpluggable-cpus", {}, { signal })) as CpuSlot[];
}

/** Plugs or unplugs vCPUs until there are `count`; returns how many there are. The guest brings new ones online itself. */
export async function resizeVcpus(qmp: QmpClient, count: number, signal?: AbortSignal): Promise<number> {
  const slots = await cpuSlots(qmp, signal);
  // QEMU lists the last slot first.
  const free = slots.filter((slot) => slot["qom-path"] === undefined).reverse();
  const plugged = slots.filter((slot) => slot["qom-path"]?.startsWith("/machine/peripheral/"));
  let present = slots.length - free.length;
  for (const slot of free) {
    if (present >= count) break;
    await qmp.execute("device_add", { driver: slot.type, id: cpuId(slot), ...slot.props }, { signal });
    present++;
  }
  const leaving = plugged.slice(0, Math.max(0, present - count));
  for (const slot of leaving) await qmp.execute("device_del", { id: cpuId(slot) }, { signal });
  return leaving.length === 0 ? present : settle(() => countPlugged(qmp, signal), count);
}

/** QEMU 7.2 tells no event when a vCPU has gone, so its list is asked. */
async function countPlugged(qmp: QmpClient, signal?: AbortSignal): Promise<number> {
  return (await cpuSlots(qmp, signal)).filter((slot) => slot["qom-path"] !== undefined).length;
}

/** An element of query-cpus-fast. */
interface CpuThread {
  readonly "cpu-index": number;
  readonly "thread-id": number;
}

/** Ids of the threads that run the vCPUs. An emulator without threads of its own for them tells one for all. */
export async function vcpuThreads(qmp: QmpClient, signal?: AbortSignal): Promise<readonly number[]> {
  const cpus = (await qmp.execute("query-cpus-fast", {}, { signal })) as CpuThread[];
  return cpus.sort((left, right) => left["cpu-index"] - right["cpu-index"]).map((cpu) => cpu["thread-id"]);
}

export interface MemoryBounds {
  /** Memory of the start. */
  readonly baseMib: number;
  /** What virtio-mem can add; 0 when the machine has none. */
  readonly extraMib: number;
}

/** Moves memory with virtio-mem above the start size and with the balloon below it; returns the MiB reached. */
export async function resizeMemory(
  qmp: QmpClient,
  bounds: MemoryBounds,
  memoryMib: number,
  signal?: AbortSignal,
): Promise<number> {
  const extraMib = Math.max(0, memoryMib - bounds.baseMib);
  const pluggedMib = bounds.extraMib > 0 ? await setExtra(qmp, extraMib, signal) : 0;
  const keptMib = await setBalloon(qmp, Math.min(memoryMib, bounds.baseMib), signal);
  return keptMib + pluggedMib;
}

/** Asks virtio-mem for a size, in its own steps; returns the MiB that the guest has taken. */
async function setExtra(qmp: QmpClient, extraMib: number, signal?: AbortSignal): Promise<number> {
  const device = await memoryDevice(qmp, signal);
  const blockMib = device["block-size"] / MIB;
  const requested = Math.ceil(extraMib / blockMib) * blockMib * MIB;
  const path = `/machine/peripheral/${MEMORY_DEVICE_ID}`;
  await qmp.execute("qom-set", { path, property: "requested-size", value: requested }, { signal });
  const read = async () => (await memoryDevice(qmp, signal)).size;
  return (await settle(read, requested)) / MIB;
}

interface MemoryDeviceInfo {
  readonly id?: string;
  readonly size: number;
  readonly "block-size": number;
}

async function memoryDevice(qmp: QmpClient, signal?: AbortSignal): Promise<MemoryDeviceInfo> {
  const devices = (await qmp.execute("query-memory-devices", {}, { signal })) as { data: MemoryDeviceInfo }[];
  const found = devices.find(({ data }) => data.id === MEMORY_DEVICE_ID);
  if (!found) throw new HakoError("INTERNAL", "Cannot resize memory: QEMU has lost its memory device");
  return found.data;
}

/** The balloon counts only the memory of the start. Returns the MiB of it that are left to the guest. */
async function setBalloon(qmp: QmpClient, keptMib: number, signal?: AbortSignal): Promise<number> {
  const target = keptMib * MIB;
  await qmp.execute("balloon", { value: target }, { signal });
  const read = async () => {
    const { actual } = (await qmp.execute("query-balloon", {}, { signal })) as { actual: number };
    return actual;
  };
  return (await settle(read, target)) / MIB;
}

/** Reads until the value is the wanted one, or stands still, or the time is over; returns the last value. */
async function settle(read: () => Promise<number>, wanted: number): Promise<number> {
  const end = performance.now() + SETTLE_TIMEOUT_MS;
  let value = await read();
  let changed = performance.now();
  while (value !== wanted && performance.now() < Math.min(end, changed + QUIET_MS)) {
    await Bun.sleep(POLL_MS);
    const next = await read();
    if (next !== value) changed = performance.now();
    value = next;
  }
  return value;
}
