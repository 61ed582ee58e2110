import { expect, test } from "bun:test";
import {
  capabilityMask,
  capabilityNames,
  capabilityNumber,
  findCapabilityName,
} from "#linux/capabilities.ts";
import { CAPABILITIES } from "#oci/capability.ts";

test("numbers are those of linux/capability.h", () => {
  expect(capabilityNumber("CAP_CHOWN")).toBe(0);
  expect(capabilityNumber("CAP_SYS_ADMIN")).toBe(21);
  expect(capabilityNumber("CAP_CHECKPOINT_RESTORE")).toBe(40);
});

test("names are those that specifications may use", () => {
  expect(CAPABILITIES.map(capabilityNumber)).toEqual(CAPABILITIES.map((_, index) => index));
  expect(findCapabilityName(CAPABILITIES.length)).toBeUndefined();
});

test("masks and names are inverse", () => {
  expect(capabilityMask(["CAP_CHOWN", "CAP_KILL", "CAP_BPF"])).toBe((1n << 0n) | (1n << 5n) | (1n << 39n));
  expect(capabilityNames(capabilityMask([...CAPABILITIES]))).toEqual([...CAPABILITIES]);
  expect(capabilityMask([])).toBe(0n);
  expect(capabilityNames(1n << 63n)).toEqual([]);
});

test.each(["CAP_UNKNOWN", "chown", "CHOWN", "constructor", ""])("%p is no capability", (name) => {
  expect(() => capabilityNumber(name)).toThrow(`Capability "${name}" is unknown`);
});
