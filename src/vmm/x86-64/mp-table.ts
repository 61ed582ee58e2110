import { ByteWriter } from "#vmm/byte-writer.ts";
import { withChecksum } from "#vmm/checksum.ts";
import { LAYOUT } from "./layout.ts";

/** MultiProcessor Specification 1.4, 4.3: entry types. */
const PROCESSOR = 0;
const BUS = 1;
const IOAPIC = 2;
const IO_INTERRUPT = 3;
const LOCAL_INTERRUPT = 4;

const ENABLED = 1;
const BOOT_PROCESSOR = 2;
const APIC_VERSION = 0x14;
const IOAPIC_VERSION = 0x11;
const IOAPIC_PINS = 24;
const INTERRUPT_INT = 0;
const INTERRUPT_NMI = 1;
const INTERRUPT_EXTINT = 3;
/** Polarity and trigger conform to the bus: ISA, so edge and active high. */
const CONFORMS = 0;
const ALL_APICS = 0xff;
const ISA_BUS = 0;
const HEADER_SIZE = 44;
const POINTER_SIZE = 16;

/**
 * The MP table with its floating pointer in front, for LAYOUT.MP_TABLE: processors with ids 0 to `vcpus` - 1, one
 * ISA bus whose interrupts go to the IOAPIC's pins of the same number.
 */
export function mpTable(vcpus: number): Buffer {
  const entries = new ByteWriter(20 * vcpus + 8 * 32);
  const ioapicId = vcpus;
  for (let id = 0; id < vcpus; id++) {
    const flags = ENABLED | (id === 0 ? BOOT_PROCESSOR : 0);
    entries.u8(PROCESSOR).u8(id).u8(APIC_VERSION).u8(flags).u32(0x600).u32(0x201).u32(0).u32(0);
  }
  entries.u8(BUS).u8(ISA_BUS).text("ISA", 6, 0x20);
  entries.u8(IOAPIC).u8(ioapicId).u8(IOAPIC_VERSION).u8(ENABLED).u32(Number(LAYOUT.IOAPIC));
  for (let pin = 0; pin < IOAPIC_PINS; pin++) {
    entries.u8(IO_INTERRUPT).u8(INTERRUPT_INT).u16(CONFORMS).u8(ISA_BUS).u8(pin).u8(ioapicId).u8(pin);
  }
  for (const [pin, kind] of [INTERRUPT_EXTINT, INTERRUPT_NMI].entries()) {
    entries.u8(LOCAL_INTERRUPT).u8(kind).u16(CONFORMS).u8(ISA_BUS).u8(0).u8(ALL_APICS).u8(pin);
  }
  const count = vcpus + 2 + IOAPIC_PINS + 2;
  return Buffer.concat([floatingPointer(), configuration(entries.take(), count)]);
}

function floatingPointer(): Buffer {
  const bytes = new ByteWriter(POINTER_SIZE).text("_MP_").u32(Number(LAYOUT.MP_TABLE) + POINTER_SIZE);
  return withChecksum(bytes.u8(1).u8(4).u8(0).zeros(5).take(), 10);
}

function configuration(entries: Buffer, count: number): Buffer {
  const bytes = new ByteWriter(HEADER_SIZE + entries.length).text("PCMP");
  bytes
    .u16(HEADER_SIZE + entries.length)
    .u8(4)
    .u8(0)
    .text("HAKO", 8, 0x20)
    .text("VMM", 12, 0x20);
  bytes.u32(0).u16(0).u16(count).u32(Number(LAYOUT.LAPIC)).u32(0).bytes(entries);
  return withChecksum(bytes.take(), 7);
}
