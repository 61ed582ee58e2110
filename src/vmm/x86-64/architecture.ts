import type { Architecture, BootRequest, GuestBytes, HostCpu } from "#vmm/architecture.ts";
import { deviceWindows } from "#vmm/device-window.ts";
import { CREATE, MACHINE_SECTION, VCPU_SECTION } from "#vmm/wire.ts";
import type { Section } from "#vmm/wire-format.ts";
import { acpiTables } from "./acpi.ts";
import { DEVICE_GSIS, EVENT_GSI, POWER_PORT } from "./board.ts";
import { bootParams } from "./boot-params.ts";
import { cpuMismatch } from "./cpu-compatibility.ts";
import { decodeCpuid, encodeCpuid, initialXcr0, physicalAddressBits } from "./cpuid.ts";
import { type CpuModel, guestCpuid } from "./guest-cpuid.ts";
import { readCpuModel } from "./host-cpu.ts";
import { LAYOUT, layOutMemory } from "./layout.ts";
import { memoryMap } from "./memory-map.ts";
import { mpTable } from "./mp-table.ts";
import { identityPageTables } from "./page-table.ts";
import { pvhStartInfo } from "./pvh.ts";
import { type Entry, entryRegisters, extendedControl, firmwareMsrs } from "./register.ts";
import { CODE_32, CODE_64, descriptorTable } from "./segment.ts";

export interface X86HostCpu extends HostCpu {
  readonly model: CpuModel;
}

/** The x86-64 machine: no PCI, no firmware, devices on virtio-mmio, an in-kernel IOAPIC, COM1. */
export const x86_64: Architecture<X86HostCpu> = {
  readHostCpu(kvmFd, cacheDir) {
    const model = readCpuModel(kvmFd, cacheDir);
    return { model, addressBits: physicalAddressBits(model.supported) };
  },
  layOutMemory: (bytes, deviceSizes, { addressBits }) => layOutMemory(bytes, deviceSizes, addressBits),
  deviceWindows: (count) => deviceWindows(count, LAYOUT.MMIO, DEVICE_GSIS),
  board: {
    flags: CREATE.CREATE_I8042 | CREATE.CREATE_SERIAL,
    powerPort: POWER_PORT,
    mmioBase: LAYOUT.MMIO.start,
    mmioSize: LAYOUT.MMIO.size,
  },
  generation: { gsi: EVENT_GSI, address: LAYOUT.GENERATION_ID },
  kernelParams(discovery, windows) {
    // Debian's 6.1 spins on its way to ACPI's reset register; the keyboard controller's works for every kernel.
    if (discovery === "acpi") return ["pci=off", "reboot=k"];
    const devices = windows.map(({ gpa, gsi }) => `virtio_mmio.device=4K@0x${gpa.toString(16)}:${gsi}`);
    return ["acpi=off", "pci=off", "reboot=k", ...devices];
  },
  bootMemory,
  vcpuState,
  identity: (vcpu) => vcpu.filter(({ kind }) => kind === VCPU_SECTION.VCPU_CPUID),
  restoreProblem(vcpu, { model }) {
    const cpuid = vcpu.find(({ kind }) => kind === VCPU_SECTION.VCPU_CPUID);
    return cpuid ? cpuMismatch(decodeCpuid(cpuid.bytes), model.supported) : "it has no CPUID";
  },
  restoreMachine: (machine) => machine.map(asPlainClock),
};

/** Offset of `flags` in struct kvm_clock_data. */
const CLOCK_FLAGS = 8;

/**
 * Without flags KVM sets the clock to the plain value. KVM_CLOCK_REALTIME would add the time that has passed: the guest
 * would see days of monotonic time at once after a template's sleep, and where KVM had no master clock when it was saved
 * the guest hangs. Whoever restores a machine sets its wall clock.
 */
function asPlainClock(section: Section): Section {
  if (section.kind !== MACHINE_SECTION.MACHINE_CLOCK) return section;
  const bytes = Buffer.from(section.bytes);
  bytes.writeUInt32LE(0, CLOCK_FLAGS);
  return { ...section, bytes };
}

function entryOf({ kernel }: BootRequest): Entry {
  return kernel.pvhEntry === undefined
    ? { protocol: "linux64", address: kernel.entry }
    : { protocol: "pvh", address: kernel.pvhEntry };
}

function bootMemory(request: BootRequest): GuestBytes[] {
  const { kernel, initrd, ram, vcpus, windows, discovery } = request;
  const entry = entryOf(request);
  const map = memoryMap(ram);
  const acpi = discovery === "acpi";
  const tables = acpi ? acpiTables(vcpus, windows) : [];
  const rsdp = acpi ? LAYOUT.ACPI_TABLES : 0n;
  const boot =
    entry.protocol === "pvh"
      ? pvhStartInfo(map, initrd, rsdp)
      : [
          { gpa: LAYOUT.ZERO_PAGE, bytes: bootParams(map, initrd, rsdp, kernel.setupHeader) },
          { gpa: LAYOUT.PAGE_TABLES, bytes: identityPageTables() },
        ];
  return [
    { gpa: LAYOUT.GDT, bytes: descriptorTable(entry.protocol === "pvh" ? CODE_32 : CODE_64) },
    { gpa: LAYOUT.COMMAND_LINE, bytes: request.commandLine },
    { gpa: LAYOUT.MP_TABLE, bytes: mpTable(vcpus) },
    ...tables,
    ...boot,
  ];
}

function vcpuState(request: BootRequest, { model }: X86HostCpu): Section[][] {
  return Array.from({ length: request.vcpus }, (_, index) => {
    const cpuid = guestCpuid(model, index, request.vcpus);
    const xcr0 = initialXcr0(cpuid);
    return [
      { kind: VCPU_SECTION.VCPU_CPUID, bytes: encodeCpuid(cpuid) },
      ...(xcr0 === undefined ? [] : [extendedControl(xcr0)]),
      firmwareMsrs(),
      ...(index === 0 ? entryRegisters(entryOf(request)) : []),
    ];
  });
}
