/** The ACPI tables, read by ACPICA's disassembler. */
import { describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { device, eisaId, integer, named, nameString, packageOf, scope, string } from "#vmm/acpi/aml.ts";
import type { GuestBytes } from "#vmm/architecture.ts";
import { acpiTables } from "#vmm/x86-64/acpi.ts";
import { x86_64 } from "#vmm/x86-64/architecture.ts";
import { LAYOUT } from "#vmm/x86-64/layout.ts";
import { testIf } from "../../support/skip.ts";

const VCPUS = 64;
const WINDOWS = 64;
const tables = acpiTables(VCPUS, x86_64.deviceWindows(WINDOWS));

function tableBySignature(signature: string): GuestBytes {
  const found = tables.find(({ bytes }) => Buffer.from(bytes).toString("latin1", 0, 4) === signature);
  if (!found) throw new Error(`there is no ${signature}`);
  return found;
}

const bytesOf = (signature: string) => Buffer.from(tableBySignature(signature).bytes);
const sum = (bytes: Uint8Array) => bytes.reduce((total, byte) => total + byte, 0) & 0xff;

/** What `iasl -d` writes for a table. */
function disassemble(signature: string): string {
  const work = mkdtempSync(join(tmpdir(), "hako-acpi-"));
  try {
    const path = join(work, `${signature}.aml`);
    writeFileSync(path, tableBySignature(signature).bytes);
    const result = Bun.spawnSync(["iasl", "-d", path], { cwd: work });
    const said = `${result.stdout}${result.stderr}`;
    expect(said).not.toMatch(/error|warning/i);
    return readFileSync(join(work, `${signature}.dsl`), "utf8");
  } finally {
    rmSync(work, { recursive: true });
  }
}

describe("the chain of tables", () => {
  test("leads from the root pointer to all tables, each with a right checksum and in reserved memory", () => {
    const [root] = tables;
    if (!root) throw new Error("no root pointer");
    const rsdp = Buffer.from(root.bytes);
    expect([rsdp.toString("latin1", 0, 8), rsdp[15]]).toEqual(["RSD PTR ", 2]);
    expect([sum(rsdp.subarray(0, 20)), sum(rsdp)]).toEqual([0, 0]);
    expect(rsdp.readBigUInt64LE(24)).toBe(tableBySignature("XSDT").gpa);
    const xsdt = bytesOf("XSDT");
    const listed = [xsdt.readBigUInt64LE(36), xsdt.readBigUInt64LE(44)];
    expect(listed).toEqual([tableBySignature("FACP").gpa, tableBySignature("APIC").gpa]);
    expect(bytesOf("FACP").readBigUInt64LE(140)).toBe(tableBySignature("DSDT").gpa);
    for (const { gpa, bytes } of tables.slice(1)) {
      expect(sum(bytes)).toBe(0);
      expect(gpa >= LAYOUT.ACPI_TABLES && gpa + BigInt(bytes.length) <= LAYOUT.MP_TABLE).toBe(true);
      expect(Buffer.from(bytes).readUInt32LE(4)).toBe(bytes.length);
    }
  });

  test("the fixed table is that of hardware-reduced ACPI with a sleep and a reset register", () => {
    const fadt = bytesOf("FACP");
    expect(fadt.length).toBe(276);
    expect(fadt.readUInt32LE(112) & (1 << 20)).toBe(1 << 20);
    expect([fadt.readBigUInt64LE(120), fadt[128]]).toEqual([0x64n, 0xfe]);
    expect([fadt.readBigUInt64LE(248), fadt.readBigUInt64LE(260)]).toEqual([0x600n, 0x600n]);
  });
});

const missing = Bun.which("iasl") ? undefined : "iasl (acpica-tools) is missing";
const iasl = testIf(missing === undefined, missing ?? "");

iasl("the disassembler reads every device of the DSDT, and 64 of them fit", () => {
  const text = disassemble("DSDT");
  expect(text.match(/"LNRO0005"/g)?.length).toBe(WINDOWS);
  expect(text).toContain('Name (_HID, EisaId ("PNP0501")');
  expect(text).toMatch(/Memory32Fixed \(ReadWrite,\s+0xD003F000,\s+\/\/ Address Base\s+0x00001000/);
  expect(text).toMatch(/Interrupt \(ResourceConsumer, Edge, ActiveHigh, Shared/);
  expect(text).toMatch(/Method \(_EVT, 1, Serialized\)[\s\S]*Notify \(\\?_?S?B?_?\.?.*VGEN, 0x80\)/);
  expect(text).toMatch(/Name \(ADDR, Package \(0x02\)\s*\{\s*0x000FF000,\s*Zero/);
  expect(text).toMatch(/Name \(\\_S5, Package \(0x04\)/);
});

iasl("the disassembler reads the MADT: 64 processors and the IOAPIC", () => {
  const text = disassemble("APIC");
  expect(text.match(/\[Processor Local APIC\]/g)?.length).toBe(VCPUS);
  expect(text).toMatch(/\[I\/O APIC\][\s\S]*Address : FEC00000/);
  expect(disassemble("FACP")).toMatch(/Hardware Reduced \(V5\) : 1/);
});

describe("AML", () => {
  test("names, integers and EISA ids", () => {
    expect(Buffer.from(nameString("\\_SB_.GED")).toString("latin1")).toBe("\\\x2e_SB_GED_");
    expect([...nameString("A.B.C")].slice(0, 2)).toEqual([0x2f, 3]);
    expect([integer(0), integer(1), integer(255)].map((aml) => [...aml])).toEqual([[0], [1], [0x0a, 255]]);
    expect([...integer(0x1234)]).toEqual([0x0b, 0x34, 0x12]);
    expect([...integer(1n << 40n)].length).toBe(9);
    expect([...eisaId("PNP0501")]).toEqual([0x0c, 0x41, 0xd0, 0x05, 0x01]);
  });

  test("lengths of one to three bytes count themselves", () => {
    const lengthBytes = (body: number) => {
      const aml = packageOf([new Uint8Array(body - 1)]);
      return { total: aml.length - 1, bytes: aml.length - 1 - body, first: aml[1] };
    };
    expect(lengthBytes(62)).toEqual({ total: 63, bytes: 1, first: 63 });
    expect(lengthBytes(63)).toEqual({ total: 65, bytes: 2, first: 0x41 });
    expect(lengthBytes(4093)).toEqual({ total: 4095, bytes: 2, first: 0x4f });
    expect(lengthBytes(4094)).toMatchObject({ bytes: 3 });
  });

  test("terms nest", () => {
    const inner = device("D", [named("_HID", string("LNRO0005"))]);
    const outer = scope("\\_SB_", [inner]);
    expect(Buffer.from(outer).indexOf(Buffer.from(inner))).toBe(outer.length - inner.length);
  });
});
