/** The hypervisor contract with the built-in monitor under hardware-style KVM. */
import { BuiltinHypervisor } from "#hypervisor/builtin/hypervisor.ts";
import { hypervisorContract } from "../../contract/hypervisor.ts";

hypervisorContract({
  name: "built-in",
  make: () => new BuiltinHypervisor(),
  agent: "hybrid-vsock",
  // An exit of a nested guest is emulated, and the serial port takes some for each character.
  floodKib: 4,
});
