import { afterAll, describe, expect, test } from "bun:test";
import type { BlockSpec, MachineSpec, NetworkSpec } from "#hypervisor/hypervisor.ts";
import { buildCommandLine, type LaunchSettings } from "#hypervisor/qemu/command-line.ts";
import { Inventory } from "#hypervisor/qemu/inventory.ts";
import { chooseMachineType } from "#hypervisor/qemu/machine-type.ts";
import { memfd } from "#sys/fd.ts";

const file = memfd("disk", Buffer.alloc(512));
afterAll(() => file.close());

const disk: BlockSpec = { kind: "block", id: "disk0", serial: "guest", fd: file.number, readOnly: true };
const card: NetworkSpec = {
  kind: "network",
  id: "net0",
  tapFds: [40, 41],
  macAddress: "02:00:00:00:00:01",
  mtu: 1400,
};
const spec: MachineSpec = {
  id: "abc",
  runDir: "/run/hako/sandbox/abc",
  kernelFd: 30,
  initrdFd: 31,
  kernelParams: ["quiet", "agent.log=info"],
  vcpus: 1,
  memoryMib: 128,
  devices: [disk, card],
  agent: { kind: "serial", portName: "hako.agent", listenerFd: 32 },
};
const tcg: LaunchSettings = { accelerator: "tcg", seccomp: true, tscKhz: 2_300_000 };
const kvm: LaunchSettings = { accelerator: "kvm", seccomp: true };

function build(machineType: string, settings: LaunchSettings, changes: Partial<MachineSpec> = {}) {
  const changed = { ...spec, ...changes };
  const type = chooseMachineType(machineType, settings.accelerator, changed.devices.length);
  const inventory = new Inventory(type);
  for (const device of changed.devices) inventory.add(device);
  return buildCommandLine(changed, type, settings, inventory.devices, {
    controlListenerFd: 20,
    consoleFd: 21,
    vhostNetFds: [50, 51],
  });
}

/** The values of an option. */
function values(args: readonly string[], option: string): string[] {
  return args.flatMap((argument, index) => (argument === option ? (args[index + 1] ?? []) : []));
}

function objects(args: readonly string[], option: string): Record<string, unknown>[] {
  return values(args, option).map((value) => (value.startsWith("{") ? JSON.parse(value) : { text: value }));
}

function device(args: readonly string[], driver: string): Record<string, unknown> | undefined {
  return objects(args, "-device").find((object) => object.driver === driver);
}

describe.each(["microvm", "q35"])("buildCommandLine() for %s", (machineType) => {
  test("every descriptor is inherited once, under the number that the arguments use", () => {
    const { args, fds } = build(machineType, kvm);
    expect(fds).toEqual([30, 31, 20, 21, 32, file.number, 40, 41, 50, 51]);
    const number = (fd: number) => 3 + fds.indexOf(fd);
    expect(values(args, "-kernel")).toEqual([`/proc/self/fd/${number(30)}`]);
    expect(values(args, "-initrd")).toEqual([`/proc/self/fd/${number(31)}`]);
    expect(values(args, "-chardev")).toContain(`socket,id=control,fd=${number(20)},server=on,wait=off`);
    expect(values(args, "-chardev")).toContain(`socket,id=agent,fd=${number(32)},server=on,wait=off`);
    expect(values(args, "-add-fd")).toEqual([`fd=${number(21)},set=1`, `fd=${number(file.number)},set=2`]);
    expect(objects(args, "-netdev")[0]).toMatchObject({
      fds: `${number(40)}:${number(41)}`,
      vhost: true,
      vhostfds: `${number(50)}:${number(51)}`,
    });
  });

  test("nothing of the user's or of QEMU's defaults comes in, and QEMU filters its system calls", () => {
    const { args } = build(machineType, kvm);
    expect(args).toEqual(expect.arrayContaining(["-no-user-config", "-nodefaults", "-no-reboot", "-S"]));
    expect(values(args, "-sandbox")).toEqual([
      "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    ]);
    expect(build(machineType, { ...kvm, seccomp: false }).args).not.toContain("-sandbox");
  });

  test("the accelerator decides the processor and what the guest kernel is told", () => {
    const emulated = build(machineType, tcg).args;
    expect(values(emulated, "-cpu")).toEqual(["max"]);
    expect(values(emulated, "-append")[0]).toStartWith(
      "console=ttyS0 panic=-1 mitigations=off tsc_early_khz=2300000 tsc=reliable",
    );
    const native = build(machineType, kvm).args;
    expect(values(native, "-accel")).toEqual(["kvm"]);
    expect(values(native, "-cpu")).toEqual(["host"]);
    const own = machineType === "microvm" ? "console=ttyS0 panic=-1 pci=off" : "console=ttyS0 panic=-1";
    expect(values(native, "-append")).toEqual([`${own} quiet agent.log=info`]);
  });

  test("disks are read-only unless asked for, without locks, by serial", () => {
    const { args } = build(machineType, kvm);
    expect(objects(args, "-blockdev")[0]).toMatchObject({
      driver: "file",
      "node-name": "block2",
      filename: "/dev/fdset/2",
      "read-only": true,
      "auto-read-only": false,
      locking: "off",
    });
    const suffix = machineType === "q35" ? "pci" : "device";
    expect(device(args, `virtio-blk-${suffix}`)).toMatchObject({
      id: "device-disk0",
      drive: "block2",
      serial: "guest",
    });
    expect(device(args, `virtio-net-${suffix}`)).toMatchObject({
      mac: card.macAddress,
      host_mtu: 1400,
      mq: true,
    });
    expect(device(args, `virtio-rng-${suffix}`)).toBeDefined();
    expect(device(args, `virtio-balloon-${suffix}`)).toMatchObject({
      "deflate-on-oom": true,
      "free-page-reporting": true,
    });
  });

  test("the agent's channel is a named port or a vsock with the claimed context id", () => {
    expect(device(build(machineType, kvm).args, "virtserialport")).toMatchObject({
      chardev: "agent",
      name: "hako.agent",
    });
    const { args, fds } = build(machineType, kvm, { agent: { kind: "vsock", cid: 77, vhostFd: 33 } });
    const suffix = machineType === "q35" ? "pci" : "device";
    expect(device(args, `vhost-vsock-${suffix}`)).toMatchObject({
      "guest-cid": 77,
      vhostfd: String(3 + fds.indexOf(33)),
    });
    expect(device(args, "virtserialport")).toBeUndefined();
  });
});

test("the room for more memory is a whole number of Linux memory blocks", () => {
  const { args } = build("q35", kvm, { maxMemoryMib: 129 });
  expect(values(args, "-m")).toEqual(["size=128M,maxmem=256M"]);
  expect(objects(args, "-object")[0]).toMatchObject({ size: 128 * 1024 * 1024 });
});

test("q35 gets room to grow only when asked for", () => {
  expect(values(build("q35", kvm).args, "-m")).toEqual(["size=128M"]);
  expect(values(build("q35", kvm).args, "-smp")).toEqual(["cpus=1,maxcpus=1"]);
  const { args } = build("q35", kvm, { maxVcpus: 4, maxMemoryMib: 512 });
  expect(values(args, "-m")).toEqual(["size=128M,maxmem=512M"]);
  expect(values(args, "-smp")).toEqual(["cpus=1,maxcpus=4"]);
  expect(objects(args, "-object")[0]).toMatchObject({
    "qom-type": "memory-backend-ram",
    size: 384 * 1024 * 1024,
  });
  expect(device(args, "virtio-mem-pci")).toMatchObject({ id: "memory0", "requested-size": 0 });
});

test("on q35 every device has a slot of its own, and a freed one is used again", () => {
  const inventory = new Inventory(chooseMachineType("q35", "kvm", 0));
  const slots = ["a", "b", "c"].map((serial) => inventory.add({ ...disk, id: serial, serial }).slot?.slot);
  expect(slots).toEqual([1, 2, 3]);
  inventory.remove("b");
  const again = inventory.add({ ...disk, id: "d", serial: "d" });
  expect(again.slot).toEqual({ bus: "devices", slot: 2 });
  expect(again.fdset).toBe(5);
});

test("a machine type takes so many devices and no more", () => {
  for (const [name, room] of [
    ["microvm", 21],
    ["q35", 31],
  ] as const) {
    const inventory = new Inventory(chooseMachineType(name, "kvm", 0));
    for (let index = 0; index < room; index++)
      inventory.add({ ...disk, id: `d${index}`, serial: `d${index}` });
    expect(() => inventory.add({ ...disk, id: "more", serial: "more" })).toThrow(`takes ${room} devices`);
  }
});

test("under TCG microvm does without ACPI as long as its devices fit", () => {
  const disks = (count: number) =>
    Array.from({ length: count }, (_, index) => ({ ...disk, id: `d${index}`, serial: `d${index}` }));
  const few = build("microvm", tcg, { devices: disks(5) }).args;
  expect(values(few, "-machine")[0]).toContain("acpi=off,pit=on");
  expect(values(few, "-append")[0]).toContain(" acpi=off pci=off reboot=t nolapic_timer quiet");
  expect(device(few, "pvpanic")).toBeUndefined();
  const two = build("microvm", tcg, { vcpus: 2 }).args;
  expect(values(two, "-append")[0]).not.toContain("nolapic_timer");
  for (const { args } of [build("microvm", tcg, { devices: disks(6) }), build("microvm", kvm)]) {
    expect(values(args, "-machine")[0]).toContain("acpi=on");
    expect(values(args, "-append")[0]).not.toContain("acpi=off");
    expect(device(args, "pvpanic")).toBeDefined();
  }
});

test("an unknown machine type is refused with the names that there are", () => {
  expect(() => chooseMachineType("pc", "kvm", 0)).toThrow('"pc" with QEMU: there are microvm, q35');
});
