import { describe, expect, test } from "bun:test";
import type { HakoError } from "#base/error.ts";
import type { BlockSpec, MachineSpec, NetworkSpec } from "#hypervisor/hypervisor.ts";
import { validateDevice, validateMachineSpec } from "#hypervisor/machine-spec.ts";

const spec: MachineSpec = {
  id: "sandbox-1",
  runDir: "/run/hako/sandbox/sandbox-1",
  kernelFd: 3,
  initrdFd: 4,
  kernelParams: ["quiet", "agent.log=info"],
  vcpus: 1,
  memoryMib: 128,
  devices: [],
  agent: { kind: "serial", portName: "hako.agent", listenerFd: 5 },
};
const disk: BlockSpec = { kind: "block", id: "disk0", serial: "hako-guest", fd: 6, readOnly: true };
const card: NetworkSpec = { kind: "network", id: "net0", tapFds: [7], macAddress: "02:00:00:00:00:01" };

function codeOf(action: () => void): string {
  try {
    action();
  } catch (error) {
    return (error as HakoError).code;
  }
  return "accepted";
}

describe("validateMachineSpec()", () => {
  const good: Partial<MachineSpec>[] = [
    {},
    { vcpus: 256, memoryMib: 32 },
    { maxVcpus: 4, maxMemoryMib: 4096 },
    { agent: { kind: "vsock", cid: 3, vhostFd: 8 } },
    { devices: [disk, { ...disk, id: "disk1", serial: "other" }, card] },
  ];
  test.each(good.map((changes) => [changes]))("accepts %j", (changes) => {
    expect(codeOf(() => validateMachineSpec({ ...spec, ...changes }))).toBe("accepted");
  });

  const bad: Partial<MachineSpec>[] = [
    { id: "" },
    { id: "a/b" },
    { id: "x,process=evil" },
    { vcpus: 0 },
    { vcpus: 257 },
    { vcpus: Number.NaN },
    { vcpus: 2, maxVcpus: 1 },
    { memoryMib: 31 },
    { memoryMib: 128.5 },
    { memoryMib: 256, maxMemoryMib: 255 },
    { kernelParams: ["a b"] },
    { kernelParams: [""] },
    { kernelParams: ["a\0b"] },
    { kernelParams: ["é"] },
    { kernelParams: Array<string>(200).fill("parameter") },
    { agent: { kind: "vsock", cid: 2, vhostFd: 8 } },
    { agent: { kind: "vsock", cid: 0xffff_ffff, vhostFd: 8 } },
    { agent: { kind: "serial", portName: "a,b", listenerFd: 5 } },
  ];
  test.each(bad.map((changes) => [changes]))("refuses %j", (changes) => {
    expect(codeOf(() => validateMachineSpec({ ...spec, ...changes }))).toBe("INVALID_ARGUMENT");
  });
});

describe("validateDevice()", () => {
  const bad = [
    { ...disk, id: "Disk" },
    { ...disk, id: "a".repeat(33) },
    { ...disk, id: "a,b" },
    { ...disk, serial: "" },
    { ...disk, serial: "a".repeat(21) },
    { ...disk, serial: "a,b" },
    { ...card, macAddress: "02:00:00:00:00" },
    { ...card, macAddress: "03:00:00:00:00:01" },
    { ...card, macAddress: "02:00:00:00:00:01,x" },
    { ...card, tapFds: [] },
    { ...card, mtu: 67 },
    { ...card, mtu: 65536 },
  ];
  test.each(bad.map((device) => [device]))("refuses %j", (device) => {
    expect(codeOf(() => validateDevice(device, []))).toBe("INVALID_ARGUMENT");
  });

  test("refuses an id or a serial that is in use", () => {
    expect(codeOf(() => validateDevice({ ...card, id: "disk0" }, [disk]))).toBe("ALREADY_EXISTS");
    expect(codeOf(() => validateDevice({ ...disk, id: "disk1" }, [disk]))).toBe("ALREADY_EXISTS");
    expect(codeOf(() => validateDevice({ ...disk, id: "disk1", serial: "b" }, [disk]))).toBe("accepted");
  });
});
