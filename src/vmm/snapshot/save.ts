import { fsync, fsyncSync, ftruncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { HakoError } from "#base/error.ts";
import { version } from "#base/version.ts";
import { type Fd, O, openFd } from "#sys/fd.ts";
import type { VirtualMachine } from "#vmm/virtual-machine.ts";
import {
  decodeSections,
  encodeIndex,
  encodeMemorySave,
  encodeSections,
  type MemorySave,
  type Section,
} from "#vmm/wire-format.ts";
import { type DeviceProgress, encodeManifest, type MachineRecord } from "./machine-record.ts";
import { hashMemory } from "./memory-file.ts";
import { encodeStateFile } from "./state-file.ts";

/** The files of a snapshot. */
export const MEMORY_FILE = "memory";
export const STATE_FILE = "state";

/** What is saved. */
export interface SaveRequest {
  readonly vm: VirtualMachine;
  readonly record: MachineRecord;
  /** What each vCPU was told to be (CPUID), by index: KVM's own answer may differ from what it was given. */
  readonly identity: readonly (readonly Section[])[];
  /** Of hako-vmm. */
  readonly pid: number;
}

/**
 * Writes a paused machine into `dir`: first its memory, at last the state, each on disk when this resolves.
 * RESOURCE_EXHAUSTED when the disk is full.
 */
export async function saveMachine(request: SaveRequest, dir: string, signal?: AbortSignal): Promise<void> {
  const { vm, record, identity, pid } = request;
  const saves = memoryPlan(vm, record);
  using memory = openFd(join(dir, MEMORY_FILE), O.RDWR | O.CREAT | O.EXCL, 0o600);
  ftruncateSync(memory.number, Number(saves.bytes));
  // By it hako-vmm knows which pages were ever touched.
  using pages = openFd(`/proc/${pid}/pagemap`, O.RDONLY);
  const fds = [memory.number, pages.number];
  await vm.request("MEMORY_SAVE", encodeMemorySave(saves.slots), { fds, signal });
  const parts = new Map<string, Uint8Array>();
  for (let index = 0; index < record.create.vcpus; index++) {
    const answer = decodeSections(await vm.request("VCPU_GET", encodeIndex(index), { signal }));
    const given = identity[index] ?? [];
    const state = answer.filter(({ kind }) => !given.some((section) => section.kind === kind));
    parts.set(`vcpu.${index}`, encodeSections([...given, ...state]));
  }
  parts.set("machine", await vm.request("MACHINE_GET", undefined, { signal }));
  const progress: Record<string, DeviceProgress> = {};
  for (const { slot } of record.devices) {
    parts.set(`device.${slot}`, await vm.request("DEVICE_GET", encodeIndex(slot), { signal }));
    progress[slot] = { active: vm.isActive(slot), size: vm.sizeOf(slot) };
  }
  const memoryHash = hashMemory(memory.number, Number(saves.bytes));
  const manifest = {
    hako: version,
    architecture: process.arch,
    memoryBytes: saves.bytes,
    memoryHash,
    machine: record,
    progress,
  };
  await flush(memory);
  signal?.throwIfAborted();
  writeState(
    join(dir, STATE_FILE),
    encodeStateFile(new Map([["manifest", encodeManifest(manifest)], ...parts])),
  );
  using directory = openFd(dir, O.RDONLY | O.DIRECTORY);
  await flush(directory);
}

/** Memory of the machine, one piece after the other in the file, then what is plugged into memory devices. */
function memoryPlan(vm: VirtualMachine, { memory, devices }: MachineRecord) {
  const plugged = devices.flatMap((device) =>
    device.kind === "mem" && device.memory && vm.sizeOf(device.slot) > 0n ? [device.memory] : [],
  );
  const slots: MemorySave[] = [];
  let bytes = 0n;
  for (const { slot, size } of [...memory, ...plugged]) {
    slots.push({ slot, offset: bytes });
    bytes += size;
  }
  return { slots, bytes };
}

async function flush(file: Fd): Promise<void> {
  await promisify(fsync)(file.number);
}

function writeState(path: string, bytes: Uint8Array): void {
  try {
    writeFileSync(path, bytes, { mode: 0o600, flag: "wx" });
    using file = openFd(path, O.RDONLY);
    fsyncSync(file.number);
  } catch (cause) {
    const full =
      cause instanceof Error && "code" in cause && (cause.code === "ENOSPC" || cause.code === "EDQUOT");
    throw new HakoError(full ? "RESOURCE_EXHAUSTED" : "INTERNAL", "Cannot write a snapshot", { cause });
  }
}
