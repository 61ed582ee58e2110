import { ByteWriter } from "#vmm/byte-writer.ts";
import { MEM_BLOCK_SIZE } from "#vmm/device.ts";
import type { GuestHotplug } from "#vmm/guest-hotplug.ts";
import { alignUp } from "#vmm/memory-range.ts";
import type { VirtualMachine } from "#vmm/virtual-machine.ts";

const MIB = 1024n * 1024n;
/** How long nothing may change before a guest counts as unwilling. */
const QUIET_MS = 5000;
/** How long a guest may take in all. */
const SETTLE_TIMEOUT_MS = 30_000;

/** Windows of the devices that change the size of memory. */
export interface MemoryDevices {
  readonly balloonSlot: number;
  /** Absent when memory cannot grow. */
  readonly memSlot?: number;
  /** Memory of the start. */
  readonly baseMib: number;
}

/**
 * Lets vCPUs up to `count` run and has the guest bring them online, or the other way round: a vCPU that the guest
 * counts on is never parked. Returns how many the guest has online.
 */
export async function resizeVcpus(
  vm: VirtualMachine,
  guest: GuestHotplug,
  count: number,
  current: number,
  signal?: AbortSignal,
): Promise<number> {
  if (count > current) await vm.limitVcpus(count);
  const reached = await guest.online(count, signal);
  await vm.limitVcpus(Math.max(reached, count));
  return reached;
}

/** Moves memory with virtio-mem above the start size and with the balloon below it; returns the MiB reached. */
export async function resizeMemory(
  vm: VirtualMachine,
  devices: MemoryDevices,
  memoryMib: number,
  signal?: AbortSignal,
): Promise<number> {
  const base = BigInt(devices.baseMib) * MIB;
  const wanted = BigInt(memoryMib) * MIB;
  const extra = wanted > base ? alignUp(wanted - base, MEM_BLOCK_SIZE) : 0n;
  const taken = wanted < base ? base - wanted : 0n;
  const plugged =
    devices.memSlot === undefined ? 0n : await change(vm, devices.memSlot, extra, memUpdate, signal);
  const deflated = await change(vm, devices.balloonSlot, taken, balloonUpdate, signal);
  return Number((base + plugged - deflated) / MIB);
}

/** struct hako_mem, of which `requested` alone counts. */
function memUpdate(requested: bigint): Buffer {
  return new ByteWriter(40).zeros(24).u64(requested).zeros(8).take();
}

/** struct hako_balloon. */
function balloonUpdate(target: bigint): Buffer {
  return new ByteWriter(8).u64(target).take();
}

/** Asks a device for a size; returns what it has once that is the wanted one, or stands still, or the time is over. */
async function change(
  vm: VirtualMachine,
  slot: number,
  wanted: bigint,
  encode: (size: bigint) => Buffer,
  signal?: AbortSignal,
): Promise<bigint> {
  await vm.updateDevice(slot, encode(wanted));
  const end = performance.now() + SETTLE_TIMEOUT_MS;
  for (;;) {
    const size = vm.sizeOf(slot);
    if (size === wanted || performance.now() > end) return size;
    const quiet = AbortSignal.timeout(QUIET_MS);
    const either = signal ? AbortSignal.any([signal, quiet]) : quiet;
    try {
      await vm.until(() => vm.sizeOf(slot) !== size, either);
    } catch (error) {
      if (!quiet.aborted) throw error;
      return vm.sizeOf(slot);
    }
  }
}
