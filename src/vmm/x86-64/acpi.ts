import { dsdt } from "#vmm/acpi/dsdt.ts";
import { fadt, rsdp, table, xsdt } from "#vmm/acpi/table.ts";
import type { GuestBytes } from "#vmm/architecture.ts";
import { ByteWriter } from "#vmm/byte-writer.ts";
import type { DeviceWindow } from "#vmm/device-window.ts";
import { EVENT_GSI, POWER_PORT, RESET, SERIAL, SLEEP_TYPE } from "./board.ts";
import { LAYOUT } from "./layout.ts";

const LOCAL_APIC = 0;
const IO_APIC = 1;
const LOCAL_APIC_NMI = 4;
const ENABLED = 1;
const ALL_PROCESSORS = 0xff;
/** Tables begin at multiples of it. */
const ALIGNMENT = 64n;

/** All tables with the root pointer in front, for LAYOUT.ACPI_TABLES. */
export function acpiTables(vcpus: number, windows: readonly DeviceWindow[]): GuestBytes[] {
  const parts: GuestBytes[] = [];
  let next = LAYOUT.ACPI_TABLES + ALIGNMENT;
  const place = (bytes: Uint8Array) => {
    const gpa = next;
    parts.push({ gpa, bytes });
    next = (gpa + BigInt(bytes.length) + ALIGNMENT - 1n) & ~(ALIGNMENT - 1n);
    return gpa;
  };
  const description = place(
    dsdt({
      windows,
      serial: SERIAL,
      generation: { gsi: EVENT_GSI, address: LAYOUT.GENERATION_ID },
      sleepType: SLEEP_TYPE,
    }),
  );
  const fixed = place(fadt({ dsdt: description, sleepControlPort: POWER_PORT, reset: RESET }));
  const processors = place(madt(vcpus));
  const root = place(xsdt([fixed, processors]));
  if (next > LAYOUT.MP_TABLE) throw new RangeError("the ACPI tables do not fit into their area");
  return [{ gpa: LAYOUT.ACPI_TABLES, bytes: rsdp(root) }, ...parts];
}

/** The processors, with APIC ids 0 to `vcpus` - 1, and the IOAPIC (ACPI 6.4, 5.2.12). */
function madt(vcpus: number): Buffer {
  const writer = new ByteWriter(64 + 8 * vcpus).u32(Number(LAYOUT.LAPIC)).u32(0);
  for (let id = 0; id < vcpus; id++) writer.u8(LOCAL_APIC).u8(8).u8(id).u8(id).u32(ENABLED);
  writer.u8(IO_APIC).u8(12).u8(0).u8(0).u32(Number(LAYOUT.IOAPIC)).u32(0);
  writer.u8(LOCAL_APIC_NMI).u8(6).u8(ALL_PROCESSORS).u16(0).u8(1);
  return table("APIC", 5, writer.take());
}
