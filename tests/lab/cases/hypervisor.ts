/** The hypervisor contract under hardware-style KVM, the agent's channel over vhost-vsock. */
import { QemuHypervisor } from "#hypervisor/qemu/hypervisor.ts";
import { hypervisorContract } from "../../contract/hypervisor.ts";

for (const machineType of ["microvm", "q35"]) {
  hypervisorContract({
    name: `QEMU ${machineType} (KVM, vsock)`,
    make: () => new QemuHypervisor({ accelerator: "kvm" }),
    machineType,
    agent: "vsock",
  });
}
