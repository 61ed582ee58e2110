import { describe, expect, test } from "bun:test";
import { type Config, DEFAULT_CONFIG } from "#config/config.ts";
import type { SandboxSpec } from "#runtime/sandbox.ts";
import { planMachine, sizeWithin } from "#runtime/virt-container/machine-plan.ts";

const spec: SandboxSpec = {
  id: "s",
  name: "s",
  hostname: "s",
  network: "none",
  detached: false,
  autoRemove: true,
  timing: false,
};

function configured(driver: "builtin" | "qemu", settings: object, name = "auto"): Config {
  return {
    ...DEFAULT_CONFIG,
    runtime: { ...DEFAULT_CONFIG.runtime, hypervisorName: name },
    hypervisor: {
      ...DEFAULT_CONFIG.hypervisor,
      [driver]: { ...DEFAULT_CONFIG.hypervisor[driver], ...settings },
    },
  } as Config;
}

describe("planMachine()", () => {
  for (const driver of ["builtin", "qemu"] as const) {
    for (const wish of ["confidentialGuest", "sevSnpGuest", "rootless"]) {
      test(`refuses "${wish}" of ${driver} when it may be chosen, whatever else is`, () => {
        const config = configured(driver, { [wish]: true });
        expect(() => planMachine(spec, config)).toThrow("Cannot start");
        expect(() => planMachine({ ...spec, hypervisor: driver }, config)).toThrow("Cannot start");
        const other = driver === "qemu" ? "builtin" : "qemu";
        expect(planMachine({ ...spec, hypervisor: other }, config).vcpus).toBe(1);
      });
    }
  }

  test("takes a template's size as it is, its bounds included", () => {
    const size = { vcpus: 2, maxVcpus: 4, memoryMib: 300, maxMemoryMib: 500 };
    const plan = planMachine({ ...spec, size }, DEFAULT_CONFIG);
    expect(plan.size).toEqual(size);
    expect(plan.containerMemory).toBe((500 - 64) * 2 ** 20);
    expect(sizeWithin(new Set(["vcpu-hotplug", "memory-hotplug"]), size)).toEqual(size);
    expect(sizeWithin(new Set(), size)).toEqual({ vcpus: 2, memoryMib: 300 });
  });

  test("refuses a machine that is too small for its guest", () => {
    expect(() => planMachine({ ...spec, memoryMib: 127 }, DEFAULT_CONFIG)).toThrow("at least 128 MiB");
  });
});
