import { expect } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { probeKvm } from "#linux/kvm-kind.ts";
import { E, isErrno } from "#sys/errno.ts";
import { memfd, O, openFd } from "#sys/fd.ts";
import { pidfdSendSignal } from "#sys/process.ts";
import { SYS, syscall } from "#sys/syscall.ts";
import {
  countForEver,
  dataSegment,
  load,
  out,
  print,
  reset,
  spin,
  tripleFault,
} from "../support/real-mode.ts";
import {
  decodeExit,
  decodeSections,
  memoryAdd,
  POWER_PORT,
  RAM_SLOT,
  section,
  TestMachine,
  wire,
  words,
} from "../support/vmm-machine.ts";
import { encodeMessage, vmmTest } from "../support/vmm-worker.ts";

const isHardware = probeKvm().kind === "hardware";
const COUNTER = 0x500;
const SERIAL = 0x3f8;
const BOOT_TIMER = 0x3f0;

/** One page of guest memory as MEMORY_SAVE writes it. */
async function readMemory(machine: TestMachine, slot: number, at: number, length: number): Promise<Buffer> {
  using file = memfd("saved");
  syscall(SYS.ftruncate, file.number, 2 << 20);
  await machine.manager.succeed(wire("MEMORY_SAVE"), words(slot, 0, 0n), [file.number]);
  const bytes = Buffer.alloc(length);
  expect(syscall(SYS.pread64, file.number, bytes, length, at)).toBe(length);
  return bytes;
}

async function counter(machine: TestMachine): Promise<number> {
  return (await readMemory(machine, RAM_SLOT, COUNTER, 2)).readUInt16LE(0);
}

vmmTest("a guest prints and restarts: its last words, a named reason, and the process ends", async () => {
  await using machine = await TestMachine.create([...print("hako\n"), ...out(BOOT_TIMER, 7), ...reset]);
  const before = process.hrtime.bigint();
  await machine.start();
  const end = await machine.exit();
  expect(end).toMatchObject({ reason: wire("EXIT_RESET"), vcpu: 0, detail: 0x64n });
  expect(end.text).toBe("the guest restarts by port 0x64");
  expect(machine.console()).toBe("hako\n");
  expect(await machine.manager.receive()).toBeUndefined();
  expect(await machine.worker.ended()).toEqual({ code: 0 });
  expect(process.hrtime.bigint()).toBeGreaterThan(before);
});

vmmTest("each way to end has its name", async () => {
  const ways: [code: number[], reason: string, text: RegExp][] = [
    [out(POWER_PORT, 0x34), "EXIT_POWER_OFF", /^the guest powers off$/],
    [out(0xcf9, 0x06), "EXIT_RESET", /port 0xcf9$/],
    // Software KVM does not know how to shut a processor down, and says so.
    isHardware
      ? [tripleFault, "EXIT_TRIPLE_FAULT", /^triple fault at 0x/]
      : [tripleFault, "EXIT_KVM_ERROR", /^KVM internal error, suberror 1, at 0x/],
  ];
  for (const [code, reason, text] of ways) {
    await using machine = await TestMachine.create(code);
    await machine.start();
    const end = await machine.exit();
    expect(end.text).toMatch(text);
    expect(end.reason).toBe(wire(reason));
  }
});

vmmTest("states: what does not fit one is refused, and every way through the table works", async () => {
  await using machine = await TestMachine.create(countForEver(COUNTER));
  const { manager } = machine;
  const refused = async (name: string, payload?: Uint8Array) =>
    expect(await manager.request(wire(name), payload)).toMatchObject({ status: -16 });
  expect(await machine.state()).toBe(wire("STATE_CREATED"));
  for (const name of ["PAUSE", "RESUME", "MACHINE_GET"]) await refused(name);
  await refused("VCPU_GET", words(0, 0));
  await machine.start();
  expect(await machine.state()).toBe(wire("STATE_RUNNING"));
  for (const name of ["START", "RESUME", "MACHINE_GET"]) await refused(name);
  await refused("MEMORY_ADD", memoryAdd(5, 0x1000_0000n, 4096n));
  await refused("MEMORY_WRITE", Buffer.concat([words(0x600n), Buffer.from([1])]));
  await manager.succeed(wire("PAUSE"));
  expect(await machine.state()).toBe(wire("STATE_PAUSED"));
  for (const name of ["START", "PAUSE"]) await refused(name);
  const still = await counter(machine);
  expect(await counter(machine)).toBe(still);
  while ((await counter(machine)) === still) {
    await manager.succeed(wire("RESUME"));
    await Bun.sleep(1);
    await manager.succeed(wire("PAUSE"));
  }
  await manager.succeed(wire("STOP"));
  expect(await machine.worker.ended()).toEqual({ code: 0 });
});

vmmTest("a machine saved in one process goes on in another, from the same instruction", async () => {
  const code = countForEver(COUNTER, out(SERIAL, 0x2e));
  using memory = memfd("memory");
  syscall(SYS.ftruncate, memory.number, 2 << 20);
  let vcpu: Buffer;
  let devices: Buffer;
  let before: number;
  {
    await using first = await TestMachine.create(code);
    await first.start();
    while (first.console() === "") await Bun.sleep(1);
    await first.manager.succeed(wire("PAUSE"));
    first.console();
    before = await counter(first);
    using pagemap = openFd(`/proc/${first.worker.pid}/pagemap`, O.RDONLY);
    const saved = await first.manager.succeed(wire("MEMORY_SAVE"), words(RAM_SLOT, 0, 0n), [
      memory.number,
      pagemap.number,
    ]);
    expect(saved.readBigUInt64LE(0)).toBe(4096n);
    vcpu = await first.manager.succeed(wire("VCPU_GET"), words(0, 0));
    devices = await first.manager.succeed(wire("MACHINE_GET"));
  }
  const sections = decodeSections(vcpu);
  for (const kind of [
    "CPUID",
    "TSC_KHZ",
    "MP_STATE",
    "REGS",
    "SREGS",
    "XSAVE",
    "XCRS",
    "DEBUGREGS",
    "LAPIC",
    "MSRS",
    "EVENTS",
  ])
    expect(sections.has(wire(`VCPU_${kind}`))).toBe(true);
  const msrs = sections.get(wire("VCPU_MSRS")) ?? Buffer.alloc(0);
  const indices = Array.from({ length: msrs.length / 16 }, (_, i) => msrs.readUInt32LE(i * 16));
  expect(new Set(indices).size).toBe(indices.length);
  expect(indices).toContain(0x10);
  expect(indices.length).toBeGreaterThan(20);
  // A copy-on-write clone: the saved memory stays as it is.
  await using second = await TestMachine.create(code, { file: memory });
  await second.manager.succeed(wire("MACHINE_PUT"), devices);
  const state = [...sections].filter(([kind]) => kind !== wire("VCPU_CPUID") || sections.get(kind)?.length);
  const reversed = state.reverse().map(([kind, content]) => section(kind, content));
  await second.manager.succeed(wire("VCPU_PUT"), Buffer.concat([words(0, 0), ...reversed]));
  await second.start();
  while (second.console() === "") await Bun.sleep(1);
  await second.manager.succeed(wire("PAUSE"));
  const after = await counter(second);
  const printed = Number((await second.metrics()).get("serial_bytes"));
  // Each round counts once and prints once; the save may lie between the two.
  expect(Math.abs(after - before - printed)).toBeLessThanOrEqual(1);
  const kept = Buffer.alloc(2);
  syscall(SYS.pread64, memory.number, kept, 2, COUNTER);
  expect(kept.readUInt16LE(0)).toBe(before);
});

vmmTest("a file behind guest memory that becomes shorter ends the guest, with the slot named", async () => {
  using file = memfd("memory");
  syscall(SYS.ftruncate, file.number, 2 << 20);
  const touch = [...dataSegment(0x2000), ...load(0), ...print("x"), ...Array<number>(200).fill(0x90)];
  const loop = [...touch, 0xe9, -(touch.length + 3) & 0xff, (-(touch.length + 3) >> 8) & 0xff];
  await using machine = await TestMachine.create(loop, { file, flags: wire("MEMORY_SHARED") });
  await machine.start();
  while (machine.console() === "") await Bun.sleep(1);
  syscall(SYS.ftruncate, file.number, 0x1_0000);
  const end = await machine.exit();
  expect(end.text).toMatch(/^memory slot 0 \(0x0 to 0x200000\) is not all there any more/);
  expect(end.reason).toBe(wire("EXIT_MEMORY_FAULT"));
});

vmmTest("guest memory that is gone when this process itself touches it is the same end", async () => {
  using file = memfd("memory");
  syscall(SYS.ftruncate, file.number, 2 << 20);
  await using machine = await TestMachine.create(spin, { file, flags: wire("MEMORY_SHARED") });
  syscall(SYS.ftruncate, file.number, 0x1_0000);
  const payload = Buffer.concat([words(0x10_0000n), Buffer.from("x")]);
  const end = decodeExit(await machine.manager.receiveAfter(wire("MEMORY_WRITE"), payload));
  expect(end).toMatchObject({ reason: wire("EXIT_MEMORY_FAULT") });
  expect(end.text).toStartWith("memory slot 0 ");
});

vmmTest("a killed manager is followed by another, which hears of an end that nobody saw", async () => {
  await using machine = await TestMachine.create([...print("x"), ...load(0), ...spin]);
  await machine.start();
  machine.manager.close();
  using second = await machine.worker.connect();
  using third = await machine.worker.connect();
  expect((await second.succeed(wire("HELLO"))).readUInt32LE(0)).toBe(wire("STATE_RUNNING"));
  await second.succeed(wire("PAUSE"));
  second.close();
  expect((await third.succeed(wire("HELLO"))).readUInt32LE(0)).toBe(wire("STATE_PAUSED"));
  third.close();
  await using lonely = await TestMachine.create([
    ...countForEver(COUNTER).slice(0, 4),
    ...print("y"),
    ...reset,
  ]);
  lonely.manager.sendRaw(encodeMessage(wire("START"), 99));
  lonely.manager.close();
  while (!lonely.console().includes("y")) await Bun.sleep(1);
  using late = await lonely.worker.connect();
  expect(decodeExit(await late.receive()).reason).toBe(wire("EXIT_RESET"));
  expect(await lonely.worker.ended()).toEqual({ code: 0 });
});

vmmTest("a console that nobody reads does not hold the guest up", async () => {
  await using machine = await TestMachine.create(countForEver(COUNTER, [...print("0123456789").slice(0)]));
  await machine.start();
  let dropped = 0n;
  while (dropped === 0n) {
    await Bun.sleep(20);
    dropped = (await machine.metrics()).get("serial_dropped") ?? 0n;
  }
  expect(machine.console().length).toBe(65_536);
});

vmmTest("vCPUs beyond the limit stand, and come and go with it", async () => {
  await using machine = await TestMachine.create(countForEver(COUNTER), { vcpus: 3, running: 1 });
  const threads = () =>
    readdirSync(`/proc/${machine.worker.pid}/task`)
      .map((task) => readFileSync(`/proc/${machine.worker.pid}/task/${task}/comm`, "utf8").trim())
      .filter((name) => !name.startsWith("kvm-")) // the kernel's own
      .sort();
  await machine.start();
  await machine.manager.succeed(wire("HELLO"));
  while (!threads().includes("vcpu0")) await Bun.sleep(1);
  expect(threads()).toEqual(["hako-vmm", "vcpu0"]);
  await machine.manager.succeed(wire("VCPU_LIMIT"), words(3, 0));
  while (!["vcpu1", "vcpu2"].every((name) => threads().includes(name))) await Bun.sleep(1);
  expect(threads()).toEqual(["hako-vmm", "vcpu0", "vcpu1", "vcpu2"]);
  await machine.manager.succeed(wire("VCPU_LIMIT"), words(1, 0));
  for (const count of [0, 4]) {
    const reply = await machine.manager.request(wire("VCPU_LIMIT"), words(count, 0));
    expect(reply.status).toBe(-22);
    expect(reply.payload.toString()).toBe("the machine has 1 to 3 vCPUs");
  }
  await machine.manager.succeed(wire("PAUSE"));
  await machine.manager.succeed(wire("VCPU_LIMIT"), words(2, 0));
  await machine.manager.succeed(wire("RESUME"));
  await machine.manager.succeed(wire("PAUSE"));
});

vmmTest("metrics tell exits and times", async () => {
  await using machine = await TestMachine.create([
    ...out(BOOT_TIMER, 5),
    ...out(0x80, 1),
    ...print("z"),
    ...spin,
  ]);
  await machine.start();
  while (machine.console() === "") await Bun.sleep(1);
  const metrics = await machine.metrics();
  expect(metrics.get("exits_io")).toBe(3n);
  expect(metrics.get("exits_unclaimed")).toBe(1n);
  expect(metrics.get("serial_bytes")).toBe(1n);
  const times = ["process_ns", "start_ns", "boot_timer_5"].map((name) => metrics.get(name) ?? 0n);
  expect(times[0]).toBeGreaterThan(0n);
  expect(times.toSorted((a, b) => (a < b ? -1 : 1))).toEqual(times);
});

vmmTest("beside the guest's memory it takes less than a mebibyte", async () => {
  await using machine = await TestMachine.create([...print("x"), ...spin], { memory: 128 << 20 });
  await machine.start();
  while (machine.console() === "") await Bun.sleep(1);
  const rollup = readFileSync(`/proc/${machine.worker.pid}/smaps_rollup`, "utf8");
  const kib = ["Private_Clean", "Private_Dirty"].map((name) =>
    Number(new RegExp(`^${name}: +(\\d+) kB`, "m").exec(rollup)?.[1]),
  );
  // Of the guest's memory three pages are touched; they count here.
  expect((kib[0] ?? 0) + (kib[1] ?? 0)).toBeLessThan(1024);
});

vmmTest("a defect of this program is an end with a name, too", async () => {
  await using machine = await TestMachine.create(countForEver(COUNTER));
  await machine.start();
  const SIGSEGV = 11;
  pidfdSendSignal(machine.worker.pidfd.number, SIGSEGV);
  const end = await machine.exit();
  expect(end).toMatchObject({ reason: wire("EXIT_WORKER_FAULT"), detail: 11n });
  expect(end.text).toStartWith("signal 11 at address ");
  expect(await machine.worker.ended()).toEqual({ code: 1 });
});

vmmTest("a manager that takes no answers loses the connection, and the next one gets it", async () => {
  await using machine = await TestMachine.create([...print("x"), ...spin]);
  await machine.start();
  const { manager } = machine;
  // Its answers fill the socket: metrics are much longer than the request.
  for (let id = 1; ; id++) {
    try {
      manager.sendRaw(encodeMessage(wire("METRICS"), id));
    } catch (error) {
      if (isErrno(error, E.EPIPE) || isErrno(error, E.ECONNRESET)) break;
      if (!isErrno(error, E.EAGAIN)) throw error;
      await Bun.sleep(1);
    }
  }
  using next = await machine.worker.connect();
  expect((await next.succeed(wire("HELLO"))).readUInt32LE(0)).toBe(wire("STATE_RUNNING"));
});
