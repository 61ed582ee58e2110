import { expect } from "bun:test";
import { memfd, O, openFd } from "#sys/fd.ts";
import { countForEver, spin } from "../support/real-mode.ts";
import {
  MMIO_BASE,
  machineCreate,
  memoryAdd,
  section,
  TestMachine,
  wire,
  words,
} from "../support/vmm-machine.ts";
import { encodeMessage, VmmWorker, vmmTest, type WorkerConnection } from "../support/vmm-worker.ts";

const EPROTO = -71;
const EINVAL = -22;
const EBUSY = -16;
const EEXIST = -17;
const EFAULT = -14;
const ENOENT = -2;

/** Sends a packet as it is; the status of the answer, and its text. */
async function answer(manager: WorkerConnection, packet: Uint8Array, fds: readonly number[] = []) {
  manager.sendRaw(packet, fds);
  const reply = await manager.receive();
  return { status: reply?.status, text: reply?.payload.toString() };
}

vmmTest("packets that are no messages are answered so, and nothing else happens", async () => {
  await using worker = new VmmWorker();
  using manager = await worker.connect();
  const hello = wire("HELLO");
  const packets = [
    Buffer.from("x"),
    encodeMessage(hello, 1).subarray(0, 15),
    encodeMessage(hello, 1, undefined, { length: 15 }),
    encodeMessage(hello, 1, undefined, { length: 24 }),
    encodeMessage(hello, 1, undefined, { version: 0 }),
    encodeMessage(hello, 1, undefined, { version: 2 }),
    encodeMessage(hello, 1, undefined, { status: 1 }),
    encodeMessage(hello, 0),
    encodeMessage(hello | wire("REPLY"), 1),
    Buffer.alloc(131_072 + 8, encodeMessage(hello, 1)),
  ];
  for (const packet of packets) {
    expect(await answer(manager, packet)).toEqual({ status: EPROTO, text: "not a message of version 1" });
  }
  expect((await manager.succeed(hello)).readUInt32LE(0)).toBe(wire("STATE_EMPTY"));
});

vmmTest("requests with a wrong type, length or number of descriptors are refused", async () => {
  await using worker = new VmmWorker();
  using manager = await worker.connect();
  using file = memfd("file");
  const refused = async (type: number, payload: Uint8Array, fds: number[], text: RegExp) => {
    const reply = await answer(manager, encodeMessage(type, 1, payload), fds);
    expect(reply.text).toMatch(text);
    expect(reply.status).toBe(EPROTO);
  };
  for (const type of [0, 23, 64, 32_767]) await refused(type, Buffer.alloc(0), [], /^there is no request/);
  await refused(wire("HELLO"), Buffer.alloc(8), [], /does not take 8 bytes/);
  await refused(
    wire("MACHINE_CREATE"),
    machineCreate(1).subarray(1),
    [file.number],
    /does not take 31 bytes/,
  );
  await refused(wire("MACHINE_CREATE"), machineCreate(1), [], /does not take 0 descriptors/);
  await refused(wire("VCPU_PUT"), Buffer.alloc(12), [], /does not take 12 bytes/);
  await refused(wire("HELLO"), Buffer.alloc(0), [file.number], /does not take 1 descriptors/);
  const many = Array<number>(21).fill(file.number);
  await refused(wire("HELLO"), Buffer.alloc(0), many, /^not a message/);
  // None of the descriptors stayed.
  const { readdirSync } = await import("node:fs");
  const before = readdirSync(`/proc/${worker.pid}/fd`).length;
  for (let i = 0; i < 50; i++)
    await answer(manager, encodeMessage(wire("HELLO"), 1), Array<number>(20).fill(file.number));
  expect(readdirSync(`/proc/${worker.pid}/fd`).length).toBe(before);
});

vmmTest("a machine that cannot be is refused, and one that can is made after it", async () => {
  await using worker = new VmmWorker();
  using manager = await worker.connect();
  using kvm = openFd("/dev/kvm", O.RDWR);
  using file = memfd("no-kvm");
  const create = (payload: Buffer, fds = [kvm.number]) =>
    manager.request(wire("MACHINE_CREATE"), payload, fds);
  const good = machineCreate(1);
  const changes: [offset: number, value: number][] = [
    [0, 0], // vCPUs
    [0, 65],
    [4, 0], // running
    [4, 2],
    [8, 8], // flags
    [12, 65_536], // power port
    [16, 0xd000_0001], // MMIO window
    [24, 4097],
  ];
  for (const [offset, value] of changes) {
    const payload = Buffer.from(good);
    payload.writeUInt32LE(value, offset);
    expect((await create(payload)).status).toBe(EINVAL);
  }
  const wrong = await create(good, [file.number]);
  expect(wrong.payload.toString()).toBe("the first descriptor is no KVM that can be used");
  expect(wrong.status).toBeLessThan(0);
  expect((await create(good)).status).toBe(0);
  expect((await create(good)).status).toBe(EBUSY);
});

vmmTest("memory that overlaps, wraps or is not there is refused", async () => {
  await using machine = await TestMachine.create(spin);
  const { manager } = machine;
  const refusals: [slot: number, gpa: bigint, size: bigint, status: number, flags?: number][] = [
    [0, 0x1000_0000n, 4096n, EEXIST], // slot taken
    [2, 0x1000n, 4096n, EEXIST], // address taken
    [2, 0x1f_f000n, 8192n, EEXIST],
    [2, MMIO_BASE, 4096n, EEXIST], // the devices' window
    [2, MMIO_BASE - 4096n, 8192n, EEXIST],
    [2, 0x1000_0800n, 4096n, EINVAL],
    [2, 0x1000_0000n, 100n, EINVAL],
    [2, 0x1000_0000n, 0n, EINVAL],
    [2, 0xffff_ffff_ffff_f000n, 8192n, EINVAL],
    [2, 0xffff_ffff_ffff_f000n, 4096n, EINVAL],
    [96, 0x1000_0000n, 4096n, EINVAL],
    [2, 0x1000_0000n, 4096n, EINVAL, 16], // unknown flag
  ];
  for (const [slot, gpa, size, status, flags] of refusals) {
    const reply = await manager.request(wire("MEMORY_ADD"), memoryAdd(slot, gpa, size, flags));
    expect([slot, gpa, size, reply.status]).toEqual([slot, gpa, size, status]);
  }
  const writes: [gpa: bigint, length: number][] = [
    [0x20_0000n, 1],
    [0x1f_ffffn, 2],
    [0n, 0],
    [0xffff_ffff_ffff_ffffn, 2],
  ];
  for (const [gpa, length] of writes) {
    const reply = await manager.request(
      wire("MEMORY_WRITE"),
      Buffer.concat([words(gpa), Buffer.alloc(length)]),
    );
    expect(reply.status).toBe(EFAULT);
  }
  using file = memfd("short", Buffer.from("short"));
  const load = (gpa: bigint, offset: bigint, length: bigint) =>
    manager.request(wire("MEMORY_LOAD"), words(gpa, offset, length), [file.number]);
  expect((await load(0x1000n, 0n, 5n)).status).toBe(0);
  expect((await load(0x1000n, 0n, 6n)).status).toBe(-61);
  expect((await load(0x1000n, 1n << 63n, 1n)).status).toBe(EINVAL);
  expect((await load(0x1000n, 0n, 1n << 40n)).status).toBe(EFAULT);
});

vmmTest("state that makes no sense is refused", async () => {
  await using machine = await TestMachine.create(countForEver(0x500));
  const { manager } = machine;
  const put = (sections: Uint8Array, vcpu = 0) =>
    manager.request(wire("VCPU_PUT"), Buffer.concat([words(vcpu, 0), sections]));
  // Zeros but for rip and rflags, the last two: where the processor is anyway.
  const regs = section(wire("VCPU_REGS"), Buffer.concat([Buffer.alloc(128), words(0xfff0n, 2n)]));
  expect((await put(regs)).status).toBe(0);
  expect((await put(regs, 1)).status).toBe(EINVAL);
  const bad = [
    Buffer.concat([regs, regs]), // twice
    words(wire("VCPU_REGS"), 144), // cut off
    words(64, 0), // no such kind
    words(wire("VCPU_REGS"), 0xffff_ffff),
    section(wire("VCPU_REGS"), Buffer.alloc(136)),
    section(wire("VCPU_SREGS"), Buffer.alloc(144)),
    section(wire("VCPU_XSAVE"), Buffer.alloc(2048)),
    section(wire("VCPU_LAPIC"), Buffer.alloc(8)),
    section(wire("VCPU_CPUID"), Buffer.alloc(41)),
    section(wire("VCPU_CPUID"), Buffer.alloc(40 * 257)),
    section(wire("VCPU_MSRS"), Buffer.alloc(16 * 513)),
    section(wire("VCPU_MSRS"), words(0xdead_beef, 0, 1n)),
  ];
  for (const [index, sections] of bad.entries())
    expect([index, (await put(sections)).status]).toEqual([index, EINVAL]);
  const chip = section(wire("MACHINE_IOAPIC"), Buffer.alloc(520));
  expect((await manager.request(wire("MACHINE_PUT"), chip)).status).toBe(EINVAL);
  const serial = section(wire("MACHINE_SERIAL"), Buffer.alloc(16, 255));
  expect((await manager.request(wire("MACHINE_PUT"), serial)).status).toBe(EINVAL);
  await machine.start();
  await manager.succeed(wire("PAUSE"));
  const save = await manager.request(wire("MEMORY_SAVE"), words(7, 0, 0n), [1]);
  expect(save.status).toBe(EINVAL);
});

vmmTest("devices that cannot be are refused", async () => {
  await using machine = await TestMachine.create(spin);
  const { manager } = machine;
  /** struct hako_device_add; for rng nothing follows. */
  const add = (
    change: { slot?: number; kind?: number; gpa?: bigint; gsi?: number; size?: number; rest?: number } = {},
  ) => {
    const { slot = 0, kind = wire("KIND_RNG"), gpa = MMIO_BASE, gsi = 5, size = 0, rest = 0 } = change;
    const id = Buffer.alloc(40);
    id.write("rng");
    const payload = Buffer.concat([words(slot, kind, gpa, gsi, 0, size, 0), id, Buffer.alloc(rest)]);
    return manager.request(wire("DEVICE_ADD"), payload);
  };
  expect((await add({ slot: 64 })).status).toBe(EINVAL);
  expect((await add({ kind: 99 })).status).toBeLessThan(0);
  expect((await add({ gpa: MMIO_BASE + 1n })).status).toBe(EINVAL);
  expect((await add({ gpa: MMIO_BASE - 4096n })).status).toBe(EINVAL);
  expect((await add({ gpa: MMIO_BASE + 0x10_0000n })).status).toBe(EINVAL);
  expect((await add({ gsi: 4 })).status).toBe(EINVAL);
  expect((await add({ gsi: 24 })).status).toBe(EINVAL);
  expect((await add({ size: 3 })).status).toBe(EINVAL);
  expect((await add({ rest: 8 })).status).toBe(EPROTO);
  const reply = await add();
  expect(reply.payload.toString()).toBe("");
  expect((await add({ gpa: MMIO_BASE + 4096n })).status).toBe(EEXIST);
  expect((await add({ slot: 1 })).status).toBe(EEXIST);
  expect((await add({ slot: 1, gpa: MMIO_BASE + 4096n })).status).toBe(0);
  expect((await manager.succeed(wire("HELLO"))).readUInt32LE(12)).toBe(2);
  for (const slot of [2, 64, 0xffff_ffff])
    expect((await manager.request(wire("DEVICE_REMOVE"), words(slot, 0))).status).toBe(ENOENT);
  expect((await manager.request(wire("DEVICE_UPDATE"), words(0, 0))).status).toBe(-95);
  expect((await manager.request(wire("DEVICE_PUT"), words(0, 0, 1, 2))).status).toBe(EINVAL);
  await machine.start();
  await manager.succeed(wire("DEVICE_REMOVE"), words(0, 0));
  expect((await manager.succeed(wire("HELLO"))).readUInt32LE(12)).toBe(1);
  expect((await manager.request(wire("INTERRUPT"), words(24, 0))).status).toBe(EINVAL);
});
