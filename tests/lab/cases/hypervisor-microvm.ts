/** The hypervisor contract under hardware-style KVM, the agent's channel over vhost-vsock. */
import { QemuHypervisor } from "#hypervisor/qemu/hypervisor.ts";
import { hypervisorContract } from "../../contract/hypervisor.ts";

hypervisorContract({
  name: "QEMU microvm (KVM, vsock)",
  make: () => new QemuHypervisor({ accelerator: "kvm" }),
  machineType: "microvm",
  agent: "vsock",
  // An exit of a nested guest is emulated, and the serial port takes some for each character.
  floodKib: 4,
});
