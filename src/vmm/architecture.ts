import { HakoError } from "#base/error.ts";
import type { KernelImage } from "./boot/kernel-image.ts";
import type { DeviceWindow } from "./device-window.ts";
import type { MemoryRange } from "./memory-range.ts";
import type { MachineCreate, Section } from "./wire-format.ts";

/** Bytes that go to an address of guest memory. */
export interface GuestBytes {
  readonly gpa: bigint;
  readonly bytes: Uint8Array;
}

/** The guest's memory, and the places for memory that devices bring. */
export interface MemoryLayout {
  readonly ram: readonly MemoryRange[];
  /** One for each size asked for, in their order. */
  readonly device: readonly MemoryRange[];
}

/** How the guest learns of its devices: ACPI tables, or words on the kernel's command line. */
export type Discovery = "acpi" | "command-line";

/** What is particular to this host's processors; read once. */
export interface HostCpu {
  readonly addressBits: number;
}

/** What firmware would do: everything between a kernel that is loaded and its first instruction. */
export interface BootRequest {
  readonly kernel: KernelImage;
  readonly initrd?: MemoryRange;
  /** With its NUL. */
  readonly commandLine: Uint8Array;
  readonly ram: readonly MemoryRange[];
  readonly windows: readonly DeviceWindow[];
  /** All that there can ever be. */
  readonly vcpus: number;
  readonly discovery: Discovery;
}

/** One processor architecture; `x86-64/` is one, another is a folder more. */
export interface Architecture<Cpu extends HostCpu = HostCpu> {
  /** Reads what KVM offers, kept in `cacheDir`. `kvmFd`: an open /dev/kvm. */
  readHostCpu(kvmFd: number, cacheDir?: string): Cpu;
  /** Places `bytes` of memory (whole pages), then one range for each of `deviceSizes`. FAILED_PRECONDITION when they do not fit. */
  layOutMemory(bytes: bigint, deviceSizes: readonly bigint[], cpu: Cpu): MemoryLayout;
  /** Windows and interrupts for `count` devices. */
  deviceWindows(count: number): DeviceWindow[];
  /** The board's part of MACHINE_CREATE. */
  readonly board: Pick<MachineCreate, "flags" | "powerPort" | "mmioBase" | "mmioSize">;
  /** Words that the kernel needs on its command line. */
  kernelParams(discovery: Discovery, windows: readonly DeviceWindow[]): string[];
  /** Tables and parameters for the kernel, to be written into guest memory. */
  bootMemory(request: BootRequest): GuestBytes[];
  /** State of each processor before its first instruction, by index. */
  vcpuState(request: BootRequest, cpu: Cpu): Section[][];
  /** The sections that say what a vCPU is, not what it is doing: CPUID. */
  identity(vcpu: readonly Section[]): Section[];
  /** Why a processor of this state cannot go on here; undefined when it can. */
  restoreProblem(vcpu: readonly Section[], cpu: Cpu): string | undefined;
  /** The machine's state as it is put: its clock goes on from where it stood, as if no time had passed. */
  restoreMachine(machine: readonly Section[]): Section[];
  /** The interrupt that tells the guest of a new generation id, and where its 16 bytes lie. */
  readonly generation: { readonly gsi: number; readonly address: bigint };
}

/** The architecture that this hako was built for. UNIMPLEMENTED where there is none. */
export async function hostArchitecture(): Promise<Architecture> {
  if (process.arch === "x64") return (await import("./x86-64/architecture.ts")).x86_64;
  throw new HakoError(
    "UNIMPLEMENTED",
    `Cannot use the built-in virtual machine monitor on ${process.arch}: it knows x86-64 alone`,
  );
}
