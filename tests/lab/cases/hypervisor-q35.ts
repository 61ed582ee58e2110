/**
 * The hypervisor contract under hardware-style KVM, for what only q35 can do. Its starts take long in an emulated L1, and
 * its ends are those of microvm.
 */
import { QemuHypervisor } from "#hypervisor/qemu/hypervisor.ts";
import { runningContract } from "../../contract/hypervisor.ts";

runningContract({
  name: "QEMU q35 (KVM, vsock)",
  make: () => new QemuHypervisor({ accelerator: "kvm" }),
  machineType: "q35",
  agent: "vsock",
  // An exit of a nested guest is emulated, and the serial port takes some for each character.
  floodKib: 4,
});
