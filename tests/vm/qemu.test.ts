/** QEMU's machine types under TCG, which works on any host; the lab runs the same suite with KVM and vsock. */
import { QemuHypervisor } from "#hypervisor/qemu/hypervisor.ts";
import { hypervisorContract } from "../contract/hypervisor.ts";

for (const machineType of ["microvm", "q35"]) {
  hypervisorContract({
    name: `QEMU ${machineType} (TCG)`,
    make: () => new QemuHypervisor({ accelerator: "tcg" }),
    machineType,
    agent: "serial",
  });
}
