import type { DeviceWindow } from "#vmm/device-window.ts";
import { type Aml, device, eisaId, integer, method, named, notify, packageOf, scope, string } from "./aml.ts";
import { edgeInterrupt, ioPorts, memory32, resourceTemplate } from "./resource.ts";
import { table } from "./table.ts";

export interface DsdtOptions {
  readonly windows: readonly DeviceWindow[];
  /** First of eight ports and interrupt of a 16550; absent without one. */
  readonly serial?: { readonly port: number; readonly gsi: number };
  /** Interrupt of the generic event device, and where the 16 bytes of VMGENID lie. */
  readonly generation: { readonly gsi: number; readonly address: bigint };
  /** SLP_TYP of the off state. */
  readonly sleepType: number;
}

const GENERATION_DEVICE = "\\_SB_.VGEN";
/** The notification that a generation id has changed (Virtual Machine Generation ID, Microsoft, 2012). */
const GENERATION_CHANGED = 0x80;

/** The devices that a kernel cannot find by itself. */
export function dsdt(options: DsdtOptions): Buffer {
  const { serial, generation, windows, sleepType } = options;
  const devices = [
    ...(serial ? [serialPort(serial.port, serial.gsi)] : []),
    ...windows.map(virtioDevice),
    generationDevice(generation.address),
    eventDevice(generation.gsi),
  ];
  const off = packageOf([integer(sleepType), integer(0), integer(0), integer(0)]);
  return table("DSDT", 2, Buffer.concat([scope("\\_SB_", devices), named("\\_S5_", off)]));
}

function serialPort(port: number, gsi: number): Aml {
  const resources = [ioPorts(port, 8), edgeInterrupt(gsi, "exclusive")];
  return device("COM1", [
    named("_HID", eisaId("PNP0501")),
    named("_UID", integer(1)),
    named("_CRS", resourceTemplate(resources)),
  ]);
}

/** A virtio-mmio window; Linux knows the id (drivers/virtio/virtio_mmio.c), and that its DMA is coherent by _CCA. */
function virtioDevice({ slot, gpa, size, gsi }: DeviceWindow): Aml {
  const resources = [memory32(gpa, size), edgeInterrupt(gsi, "shared")];
  return device(`V${slot.toString().padStart(3, "0")}`, [
    named("_HID", string("LNRO0005")),
    named("_UID", integer(slot)),
    named("_CCA", integer(1)),
    named("_CRS", resourceTemplate(resources)),
  ]);
}

function generationDevice(address: bigint): Aml {
  const halves = [integer(address & 0xffff_ffffn), integer(address >> 32n)];
  return device("VGEN", [
    named("_HID", string("HAKO0001")),
    named("_CID", string("VMGENCTR")),
    named("ADDR", packageOf(halves)),
  ]);
}

/** The generic event device (5.6.9): its one interrupt says that the generation id has changed. */
function eventDevice(gsi: number): Aml {
  return device("GED_", [
    named("_HID", string("ACPI0013")),
    named("_UID", integer(0)),
    named("_CRS", resourceTemplate([edgeInterrupt(gsi, "exclusive")])),
    method("_EVT", 1, [notify(GENERATION_DEVICE, GENERATION_CHANGED)]),
  ]);
}
