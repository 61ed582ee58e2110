import { ByteWriter } from "#vmm/byte-writer.ts";
import { VCPU_SECTION } from "#vmm/wire.ts";
import type { Section } from "#vmm/wire-format.ts";
import { LAYOUT } from "./layout.ts";
import { CODE_32, CODE_64, DATA, TASK, writeSegment, writeUnusable } from "./segment.ts";

/** How a kernel is entered: PVH in protected mode without paging, the Linux 64-bit protocol in long mode. */
export type EntryProtocol = "pvh" | "linux64";

export interface Entry {
  readonly protocol: EntryProtocol;
  /** Guest physical address of the first instruction. */
  readonly address: bigint;
}

const GDT_LIMIT = 39;
const CR0_PE = 0x1n;
const CR0_ET = 0x10n;
const CR0_PG = 0x8000_0000n;
const CR4_PAE = 0x20n;
const EFER_LME = 0x100n;
const EFER_LMA = 0x400n;
/** Enabled, bootstrap processor. */
const APIC_BASE_BOOT = LAYOUT.LAPIC | 0x900n;
/** Bit 1 of RFLAGS is always set; interrupts are off. */
const RFLAGS = 0x2n;

/** The boot processor's registers. */
export function entryRegisters(entry: Entry): Section[] {
  return [
    { kind: VCPU_SECTION.VCPU_SREGS, bytes: specialRegisters(entry.protocol) },
    { kind: VCPU_SECTION.VCPU_REGS, bytes: generalRegisters(entry) },
  ];
}

/** struct kvm_regs: rax rbx rcx rdx rsi rdi rsp rbp r8–r15 rip rflags. */
function generalRegisters({ protocol, address }: Entry): Buffer {
  const pvh = protocol === "pvh";
  const rbx = pvh ? LAYOUT.PVH_START_INFO : 0n;
  const rsi = pvh ? 0n : LAYOUT.ZERO_PAGE;
  const stack = pvh ? 0n : LAYOUT.BOOT_STACK;
  const writer = new ByteWriter(144).u64(0).u64(rbx).u64(0).u64(0).u64(rsi).u64(0).u64(stack).u64(stack);
  return writer.zeros(64).u64(address).u64(RFLAGS).take();
}

/** struct kvm_sregs: cs ds es fs gs ss tr ldt, gdt idt, cr0 cr2 cr3 cr4 cr8, efer, apic_base, pending interrupt. */
function specialRegisters(protocol: EntryProtocol): Buffer {
  const long = protocol === "linux64";
  const writer = new ByteWriter(312);
  for (const segment of [long ? CODE_64 : CODE_32, DATA, DATA, DATA, DATA, DATA, TASK]) {
    writeSegment(writer, segment);
  }
  writeUnusable(writer);
  writer.u64(LAYOUT.GDT).u16(GDT_LIMIT).zeros(6);
  writer.zeros(16);
  writer.u64(CR0_PE | CR0_ET | (long ? CR0_PG : 0n)).u64(0);
  writer
    .u64(long ? LAYOUT.PAGE_TABLES : 0n)
    .u64(long ? CR4_PAE : 0n)
    .u64(0);
  writer
    .u64(long ? EFER_LME | EFER_LMA : 0n)
    .u64(APIC_BASE_BOOT)
    .zeros(32);
  return writer.take();
}

const MSR_IA32_MISC_ENABLE = 0x1a0;
const MISC_ENABLE_FAST_STRING = 1n;
const MSR_MTRR_DEFAULT_TYPE = 0x2ff;
/** Enabled, write-back: without it Linux leaves the page attribute table alone. */
const MTRR_WRITE_BACK = 0x806n;

/** struct kvm_msr_entry[]: what firmware would have set on every processor. */
export function firmwareMsrs(): Section {
  const writer = new ByteWriter(32);
  writer.u32(MSR_IA32_MISC_ENABLE).u32(0).u64(MISC_ENABLE_FAST_STRING);
  writer.u32(MSR_MTRR_DEFAULT_TYPE).u32(0).u64(MTRR_WRITE_BACK);
  return { kind: VCPU_SECTION.VCPU_MSRS, bytes: writer.take() };
}

/**
 * struct kvm_xcrs with XCR0. The guest sets it by XSETBV; under QEMU's emulation of SVM KVM never hears of that, and
 * every AVX instruction faults, so it is put before the first instruction. On a real processor this changes nothing.
 */
export function extendedControl(xcr0: bigint): Section {
  const writer = new ByteWriter(392).u32(1).u32(0).u32(0).u32(0).u64(xcr0);
  return { kind: VCPU_SECTION.VCPU_XCRS, bytes: writer.zeros(392 - writer.length).take() };
}
