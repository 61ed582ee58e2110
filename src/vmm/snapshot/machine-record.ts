import type { MachineCreate, MemoryAdd } from "#vmm/wire-format.ts";
import { damaged } from "./state-file.ts";

/** A device of a machine, as it has to be made again. */
export interface DeviceRecord {
  readonly id: string;
  readonly kind: string;
  readonly slot: number;
  readonly gpa: bigint;
  readonly gsi: number;
  /** Of the device's own: pmem and mem. */
  readonly memory?: { readonly slot: number; readonly start: bigint; readonly size: bigint };
}

/** What became of a device while the machine ran. */
export interface DeviceProgress {
  /** The guest's driver holds it. */
  readonly active: boolean;
  /** Bytes that a balloon has taken or a memory device has plugged. */
  readonly size: bigint;
}

/** All of a machine that the manager knows and hako-vmm does not say. JSON, addresses as decimal strings. */
export interface MachineRecord {
  readonly create: MachineCreate;
  readonly memory: readonly MemoryAdd[];
  readonly devices: readonly DeviceRecord[];
  /** Windows that the guest knows of. */
  readonly windowCount: number;
  /** Whatever the driver wants to find again. */
  readonly driver: Readonly<Record<string, number>>;
}

/** The part `manifest` of a snapshot. */
export interface Manifest {
  /** Version of the hako that wrote it: states of devices have no other version than that. */
  readonly hako: string;
  readonly architecture: string;
  /** Bytes of the file `memory`, and a hash of its data. */
  readonly memoryBytes: bigint;
  readonly memoryHash: bigint;
  readonly machine: MachineRecord;
  /** By slot. */
  readonly progress: Readonly<Record<string, DeviceProgress>>;
}

export function encodeManifest(manifest: Manifest): Buffer {
  const plain = (_: string, value: unknown) => (typeof value === "bigint" ? `${value}n` : value);
  return Buffer.from(JSON.stringify(manifest, plain));
}

/** The bytes have passed their checksum: what they hold was written by {@link encodeManifest}. Throws DATA_LOSS otherwise. */
export function decodeManifest(bytes: Uint8Array | undefined): Manifest {
  const revive = (_: string, value: unknown) =>
    typeof value === "string" && /^\d+n$/.test(value) ? BigInt(value.slice(0, -1)) : value;
  try {
    const manifest = JSON.parse(Buffer.from(bytes ?? []).toString(), revive) as Manifest;
    if (Array.isArray(manifest.machine.devices) && typeof manifest.hako === "string") return manifest;
  } catch (error) {
    if (!(error instanceof SyntaxError || error instanceof TypeError)) throw error;
  }
  throw damaged("its manifest makes no sense");
}
