import { ByteWriter } from "#vmm/byte-writer.ts";
import { withChecksum } from "#vmm/checksum.ts";

const HEADER_SIZE = 36;
const CHECKSUM = 9;
const OEM_ID = "HAKO";
const OEM_TABLE_ID = "HAKOVMM";

/** A system description table with its header (ACPI 6.4, 5.2.6). */
export function table(signature: string, revision: number, body: Uint8Array): Buffer {
  const writer = new ByteWriter(HEADER_SIZE + body.length);
  writer
    .text(signature, 4)
    .u32(HEADER_SIZE + body.length)
    .u8(revision)
    .u8(0);
  writer.text(OEM_ID, 6, 0x20).text(OEM_TABLE_ID, 8, 0x20).u32(1).text(OEM_ID, 4).u32(1);
  return withChecksum(writer.bytes(body).take(), CHECKSUM);
}

/** The extended system description table: addresses of all others (5.2.8). */
export function xsdt(addresses: readonly bigint[]): Buffer {
  const writer = new ByteWriter(8 * addresses.length);
  for (const address of addresses) writer.u64(address);
  return table("XSDT", 1, writer.take());
}

/** The root pointer, revision 2 (5.2.5.3): two checksums, of the first 20 bytes and of all. */
export function rsdp(xsdtAddress: bigint): Buffer {
  const writer = new ByteWriter(36).text("RSD PTR ").u8(0).text(OEM_ID, 6, 0x20).u8(2).u32(0);
  writer.u32(36).u64(xsdtAddress).u8(0).zeros(3);
  const bytes = writer.take();
  withChecksum(bytes.subarray(0, 20), 8);
  return withChecksum(bytes, 32);
}

export interface FadtOptions {
  readonly dsdt: bigint;
  /** I/O port of one byte: writing SLP_EN with the type of `\_S5` powers off. */
  readonly sleepControlPort: number;
  /** I/O port and value that reset the machine. */
  readonly reset: { readonly port: number; readonly value: number };
}

const FADT_SIZE = 276;
const SYSTEM_IO = 1;
/** WBINVD works, no fixed power and sleep buttons, reset register, no screen, hardware-reduced (5.2.9, table 5.10). */
const FADT_FLAGS = (1 << 0) | (1 << 4) | (1 << 5) | (1 << 10) | (1 << 12) | (1 << 20);
/** No VGA, no CMOS clock; the bit for an i8042 is clear, too (table 5.11). */
const BOOT_ARCHITECTURE = (1 << 2) | (1 << 5);

/** The fixed description table of hardware-reduced ACPI, revision 6.4. */
export function fadt(options: FadtOptions): Buffer {
  const writer = new ByteWriter(FADT_SIZE)
    .zeros(109 - HEADER_SIZE)
    .u16(BOOT_ARCHITECTURE)
    .u8(0);
  writer.u32(FADT_FLAGS);
  portAddress(writer, options.reset.port);
  writer.u8(options.reset.value).u16(0).u8(4);
  writer
    .u64(0)
    .u64(options.dsdt)
    .zeros(244 - 148);
  portAddress(writer, options.sleepControlPort);
  portAddress(writer, options.sleepControlPort);
  writer.text("HAKO", 8);
  return table("FACP", 6, writer.take());
}

/** A generic address structure of one byte in I/O space (5.2.3.2). */
function portAddress(writer: ByteWriter, port: number): void {
  writer.u8(SYSTEM_IO).u8(8).u8(0).u8(1).u64(port);
}
