import { describe, expect, test } from "bun:test";
import { DEFAULT_CONFIG } from "#config/config.ts";
import { parseCpuList } from "#linux/cpu-affinity.ts";
import { cpusOf, growSize, planSize } from "#resource/machine-size.ts";

const host = { cpus: 8, memoryMib: 16_384 };
const config = {
  ...DEFAULT_CONFIG.hypervisor.qemu,
  defaultMemory: 512,
  overheadVcpus: 0.2,
  overheadMemory: 64,
};
const MIB = 1024 * 1024;

describe("static sizing", () => {
  test.each([
    [{}, 1, 512],
    [{ cpus: 0.5 }, 1, 512],
    [{ cpus: 1 }, 2, 512],
    [{ cpus: 1.7 }, 2, 512],
    [{ cpus: 100 }, 8, 512],
    [{ memoryBytes: 1024 * MIB }, 1, 1088],
    [{ memoryBytes: 1025 * MIB }, 1, 1090],
    [{ memoryBytes: 16 * MIB }, 1, 512],
    [{ cpus: 2, memoryBytes: 2048 * MIB }, 3, 2112],
  ])("limits %j make %p vCPUs and %p MiB", (limits, vcpus, memoryMib) => {
    expect(planSize(limits, config, "static", host)).toEqual({
      vcpus,
      maxVcpus: vcpus,
      memoryMib,
      maxMemoryMib: memoryMib,
    });
  });

  test.each([
    [0, 1],
    [-1, 8],
    [2.5, 3],
    [64, 8],
  ])("default_vcpus %p means %p", (defaultVcpus, vcpus) => {
    expect(planSize({}, { ...config, defaultVcpus }, "static", host).vcpus).toBe(vcpus);
  });
});

describe("dynamic sizing", () => {
  test("a machine starts with the defaults and may grow to the host's size, or to the configured one", () => {
    expect(planSize({ cpus: 4 }, config, "dynamic", host)).toEqual({
      vcpus: 1,
      maxVcpus: 8,
      memoryMib: 512,
      maxMemoryMib: 16_384,
    });
    const bounded = { ...config, defaultMaxvcpus: 3, defaultMaxmemory: 1024 };
    expect(planSize({}, bounded, "dynamic", host)).toMatchObject({ maxVcpus: 3, maxMemoryMib: 1024 });
  });

  test("it grows by what containers ask for, within its bounds, and shrinks with them", () => {
    const start = planSize({}, { ...config, defaultMaxvcpus: 4, defaultMaxmemory: 2048 }, "dynamic", host);
    const a = { cpus: 1.5, memoryBytes: 301 * MIB };
    const b = { cpus: 1, memoryBytes: 2000 * MIB };
    expect(growSize(start, [a])).toEqual({ vcpus: 3, memoryMib: 814 });
    expect(growSize(start, [a, b])).toEqual({ vcpus: 4, memoryMib: 2048 });
    expect(growSize(start, [{}])).toEqual({ vcpus: 1, memoryMib: 512 });
  });
});

test("a quota is CPUs, none is no limit", () => {
  expect(cpusOf({ quota: 150_000, period: 100_000 })).toBe(1.5);
  expect(cpusOf({ quota: -1, period: 100_000 })).toBeUndefined();
  expect(cpusOf({ quota: 100_000 })).toBeUndefined();
  expect(cpusOf(undefined)).toBeUndefined();
});

test("lists of CPUs are read as the kernel writes them", () => {
  expect(parseCpuList("0-3,8\n")).toEqual([0, 1, 2, 3, 8]);
  expect(parseCpuList("")).toEqual([]);
  expect(parseCpuList("5,1-2,2")).toEqual([1, 2, 5]);
  for (const bad of ["a", "3-1", "0-99999", "-1"])
    expect(() => parseCpuList(bad)).toThrow("as a list of CPUs");
});
