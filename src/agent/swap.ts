import { HakoError } from "#base/error.ts";
import { check } from "#sys/errno.ts";
import { cstr, SYS, syscallBlocking } from "#sys/syscall.ts";
import { lookupBlockDevice } from "./device/block-device.ts";
import type { DeviceLookup } from "./device/hotplug.ts";

const SLOTS_MAX = 8;

async function swapOn(device: string): Promise<void> {
  check(await syscallBlocking(SYS.swapon, cstr(device), 0), `Cannot swap to "${device}"`);
}

/** Swaps to the disk at a PCI path, given as the numbers of its slots; waits until it is plugged in. */
export async function addSwapByPciPath(
  slots: readonly number[],
  devices: DeviceLookup,
  signal?: AbortSignal,
): Promise<void> {
  if (slots.length === 0 || slots.length > SLOTS_MAX) {
    throw new HakoError("INVALID_ARGUMENT", `Cannot use ${slots.length} slots as a PCI path`);
  }
  const path = slots.map((slot) => slot.toString(16).padStart(2, "0")).join("/");
  await swapOn(await lookupBlockDevice(path, devices, signal));
}

/** Swaps to a disk by the name of its node: machines without PCI. */
export async function addSwapByName(
  path: string,
  devices: DeviceLookup,
  signal?: AbortSignal,
): Promise<void> {
  if (!path.startsWith("/dev/")) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Cannot swap to ${JSON.stringify(path.slice(0, 120))}: write /dev/NAME`,
    );
  }
  await swapOn(await lookupBlockDevice(path, devices, signal));
}
