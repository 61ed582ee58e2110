/** The hypervisor contract under hardware-style KVM, the agent's channel over vhost-vsock. */
import { QemuHypervisor } from "#hypervisor/qemu/hypervisor.ts";
import { hypervisorContract } from "../../contract/hypervisor.ts";

/** A byte of the serial console is an exit to L1's user space, a millisecond under emulation. */
const skips = {
  "a guest that floods its console costs no more than 64 KiB and still answers":
    "emulated hardware KVM moves 1 KiB a second through a serial port; tests/vm has this case under TCG",
};

for (const machineType of ["microvm", "q35"]) {
  hypervisorContract({
    name: `QEMU ${machineType} (KVM, vsock)`,
    make: () => new QemuHypervisor({ accelerator: "kvm" }),
    machineType,
    agent: "vsock",
    skips,
  });
}
