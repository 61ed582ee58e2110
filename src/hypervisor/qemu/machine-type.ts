import { HakoError } from "#base/error.ts";
import type { Capability } from "#hypervisor/hypervisor.ts";

export type Accelerator = "kvm" | "tcg";

/** What is particular to one of QEMU's machine types. */
export interface MachineType {
  readonly name: string;
  /** Value of `-machine`. */
  readonly machine: string;
  /** Further arguments that every machine of this type gets. */
  readonly args: readonly string[];
  /** End of the names of virtio devices: `virtio-blk-pci`, `virtio-blk-device`. */
  readonly virtioSuffix: "pci" | "device";
  /** PCI bus of the devices of a spec, where they can be plugged and unplugged; absent without PCI. */
  readonly deviceBus?: string;
  /** Devices of a spec that it takes, beside those that every machine has. */
  readonly maxDevices: number;
  readonly capabilities: ReadonlySet<Capability>;
  /** What it asks of the guest kernel. */
  kernelParams(vcpus: number): readonly string[];
}

const everywhere: readonly Capability[] = ["pause", "balloon", "vsock", "serial-agent", "share-fs"];
const microvmOptions = "rtc=on,isa-serial=on,x-option-roms=off,dump-guest-core=off,mem-merge=off";
const modernVirtioMmio = ["-global", "virtio-mmio.force-legacy=false"];

/**
 * No PCI, no firmware to speak of: virtio-mmio devices described by ACPI (its second IO-APIC gives room for 24, three
 * of them hako's own, and ACPI gives power-off and panic report). Without PIT and PIC, which hardware-reduced ACPI does
 * not use. The RTC stays: without it the guest waits a second for one and has no time of day.
 */
const microvm: MachineType = {
  name: "microvm",
  machine: `microvm,acpi=on,ioapic2=on,pit=off,pic=off,${microvmOptions}`,
  args: modernVirtioMmio,
  virtioSuffix: "device",
  maxDevices: 21,
  capabilities: new Set([...everywhere, "panic-report"]),
  kernelParams: () => ["pci=off"],
};

/**
 * The same by MP table and kernel command line, for TCG and few devices. Under TCG the guest has to measure its local
 * APIC timer: that takes 0.1 s, and it fails when the host leaves the virtual CPU waiting just then. A machine with
 * hardware-reduced ACPI has no other timer and hangs; this one has the PIT, and with one vCPU does not even measure.
 */
const emulatedMicrovm: MachineType = {
  ...microvm,
  machine: `microvm,acpi=off,pit=on,pic=on,${microvmOptions}`,
  maxDevices: 5,
  capabilities: new Set(everywhere),
  kernelParams: (vcpus) => [
    ...["acpi=off", "pci=off", "reboot=t"],
    // With more vCPUs it would cost the high-resolution timers.
    ...(vcpus === 1 ? ["nolapic_timer"] : []),
  ],
};

/**
 * A PC with PCI Express. The devices of a spec sit on a bridge, where the guest's ACPI plugs and unplugs them at once
 * (a root port for each would make every unplug wait for the attention button's five seconds).
 */
const q35: MachineType = {
  name: "q35",
  machine: "q35,hpet=off,smbus=off,sata=off,vmport=off,usb=off,smm=off,dump-guest-core=off,mem-merge=off",
  args: [
    "-device",
    JSON.stringify({
      driver: "pci-bridge",
      id: "devices",
      bus: "pcie.0",
      addr: "0x1e",
      chassis_nr: 1,
      shpc: false,
    }),
  ],
  virtioSuffix: "pci",
  deviceBus: "devices",
  maxDevices: 31,
  capabilities: new Set([
    ...everywhere,
    "panic-report",
    "block-hotplug",
    "network-hotplug",
    "vcpu-hotplug",
    "memory-hotplug",
  ]),
  kernelParams: () => [],
};

/**
 * Without vCPUs that come and go: when one leaves QEMU's emulator (7.2), it spoils the heap, and QEMU dies at the next
 * change (`double free or corruption`), or never hears that the second of two has gone.
 */
const emulatedQ35: MachineType = {
  ...q35,
  capabilities: new Set([...q35.capabilities].filter((capability) => capability !== "vcpu-hotplug")),
};

export const DEFAULT_MACHINE_TYPE = microvm.name;

const names = [microvm.name, q35.name];

/** The machine type of a name as it suits accelerator and number of devices. INVALID_ARGUMENT for an unknown name. */
export function chooseMachineType(
  name = DEFAULT_MACHINE_TYPE,
  accelerator: Accelerator,
  devices: number,
): MachineType {
  if (name === q35.name) return accelerator === "tcg" ? emulatedQ35 : q35;
  if (name === microvm.name) {
    return accelerator === "tcg" && devices <= emulatedMicrovm.maxDevices ? emulatedMicrovm : microvm;
  }
  throw new HakoError(
    "INVALID_ARGUMENT",
    `Cannot use machine type "${name}" with QEMU: there are ${names.join(", ")}`,
  );
}
