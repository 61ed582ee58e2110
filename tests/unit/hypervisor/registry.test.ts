import { expect, test } from "bun:test";
import { DEFAULT_CONFIG } from "#config/config.ts";
import { chooseHypervisor, hypervisorNames, lookupHypervisor } from "#hypervisor/registry.ts";

const withoutQemu = {
  ...DEFAULT_CONFIG,
  hypervisor: {
    ...DEFAULT_CONFIG.hypervisor,
    qemu: { ...DEFAULT_CONFIG.hypervisor.qemu, path: "/nonexistent/qemu" },
  },
};

test("every registered driver goes by its own name", async () => {
  for (const name of hypervisorNames) {
    expect((await lookupHypervisor(name, DEFAULT_CONFIG)).name).toBe(name);
  }
});

test("an unknown driver is refused with the names that there are", async () => {
  const failure = lookupHypervisor("bochs", DEFAULT_CONFIG);
  expect(failure).rejects.toMatchObject({ code: "NOT_FOUND" });
  expect(failure).rejects.toThrow('"bochs": there are auto, builtin, qemu');
});

test("auto without any usable driver says what each of them lacks", async () => {
  for (const name of ["auto", "qemu"]) {
    const failure = chooseHypervisor(name, withoutQemu);
    expect(failure).rejects.toMatchObject({ code: "FAILED_PRECONDITION" });
    expect(failure).rejects.toThrow('qemu: Cannot use "/nonexistent/qemu" as QEMU');
  }
});
