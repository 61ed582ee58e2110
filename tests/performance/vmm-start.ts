/**
 * hako-vmm alone: from before it is started to the guest's first instruction, on the /dev/kvm that there is. All
 * requests wait in its socket by then, so nothing of the manager is in it. Prints JSON; microseconds.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type Fd, memfd, O, openFd } from "#sys/fd.ts";
import { pidfdSendSignal, reapProcess, waitPidfd } from "#sys/process.ts";
import { unixConnect, unixListen } from "#sys/socket.ts";
import { spawn } from "#sys/spawn.ts";
import { SYS, syscall } from "#sys/syscall.ts";
import { TemporaryDirectory } from "../support/container.ts";
import { printResult, type Summary, summarize } from "../support/measure.ts";
import { out, spin } from "../support/real-mode.ts";
import { MMIO_BASE, machineCreate, memoryAdd, wire, words } from "../support/vmm-machine.ts";
import { encodeMessage, WORKER_ID, WORKER_NAMESPACES, WorkerConnection } from "../support/vmm-worker.ts";

const rounds = Number(process.argv[2] ?? 50);
const BOOT_TIMER = 0x3f0;
const MEMORY = 128n << 20n;

const program = memfd("hako-vmm", readFileSync(join(import.meta.dir, "../../dist/native/hako-vmm")));
const none = openFd("/dev/null", O.RDWR);
const kvm = openFd("/dev/kvm", O.RDWR);
const disk = memfd("disk");
syscall(SYS.ftruncate, disk.number, 64 << 20);

type Request = [type: string, payload: Buffer, fds?: number[]];

/** struct hako_device_add and the kind's settings. */
function device(slot: number, kind: string, settings: Buffer, fds: number[] = []): Request {
  const id = Buffer.alloc(40);
  id.write(kind);
  const place = words(slot, wire(`KIND_${kind}`), MMIO_BASE + BigInt(slot * 4096), 5 + slot, 0, 0, 0);
  return ["DEVICE_ADD", Buffer.concat([place, id, settings]), fds];
}

/** What the built-in VMM gives a sandbox: root and data disks, vsock, entropy, balloon, console, the executable. */
function bootDevices(listener: number): Request[] {
  const block = Buffer.concat([words(BigInt(64 << 20)), Buffer.alloc(24 + 32)]);
  const pmem = words(0x1_0000_0000n, BigInt(64 << 20), 0n, 10, 0);
  return [
    device(0, "BLOCK", block, [disk.number]),
    device(1, "BLOCK", block, [disk.number]),
    device(2, "VSOCK", words(3n), [listener]),
    device(3, "RNG", Buffer.alloc(0)),
    device(4, "BALLOON", words(0n)),
    device(5, "CONSOLE", words(0, 0), [none.number]),
    device(6, "PMEM", pmem, [disk.number]),
  ];
}

function machine(devices: Request[]): Request[] {
  const code = Buffer.from([...out(BOOT_TIMER, 1), ...spin]);
  return [
    ["MACHINE_CREATE", machineCreate(1), [kvm.number, none.number]],
    ["MEMORY_ADD", memoryAdd(0, 0n, MEMORY)],
    ["MEMORY_ADD", memoryAdd(1, 0xffff_f000n, 4096n)],
    ["MEMORY_WRITE", Buffer.concat([words(0xffff_f000n), code])],
    ["MEMORY_WRITE", Buffer.concat([words(0xffff_fff0n), Buffer.from([0xe9, 0x0d, 0xf0])])],
    ...devices,
    ["START", Buffer.alloc(0)],
  ];
}

const CLOCK_MONOTONIC = 1;
const clock_gettime = 228;

/** Nanoseconds of the clock that hako-vmm uses; Bun's own has another zero. */
function monotonicNow(): bigint {
  const time = new BigInt64Array(2);
  syscall(clock_gettime, CLOCK_MONOTONIC, time);
  return (time[0] ?? 0n) * 1_000_000_000n + (time[1] ?? 0n);
}

/** Microseconds from the start of the process, but for `cpu`. */
interface Times {
  /** What its event thread has run until the guest does: unlike the times it hardly depends on the host's other work. */
  readonly cpu: number;
  readonly toMain: number;
  readonly toSocket: number;
  readonly toGuest: number;
}

async function run(requests: readonly Request[]): Promise<Times> {
  using directory = new TemporaryDirectory();
  using listener = unixListen(join(directory.path, "control"), "seqpacket");
  using manager = new WorkerConnection(
    await unixConnect(join(directory.path, "control"), undefined, "seqpacket"),
  );
  requests.forEach(([type, payload, fds], index) => {
    manager.sendRaw(encodeMessage(wire(type), index + 1, payload), fds);
  });
  const started = monotonicNow();
  const { pid, pidfd } = spawn({
    program: program.number,
    arguments: ["hako-vmm", `${WORKER_ID}`, `${WORKER_ID}`],
    fds: [none.number, none.number, 2, listener.number],
    namespaces: WORKER_NAMESPACES,
  });
  using process_: Fd = pidfd;
  for (const [type] of requests) {
    const reply = await manager.receive();
    if (reply?.status !== 0) throw new Error(`${type} failed with ${reply?.status}: ${reply?.payload}`);
  }
  let metrics: Buffer;
  do metrics = await manager.succeed(wire("METRICS"));
  while (!metrics.includes("boot_timer_1\0"));
  const cpu = Number(readFileSync(`/proc/${pid}/schedstat`, "latin1").split(" ")[0]) / 1000;
  pidfdSendSignal(process_.number, 9);
  await waitPidfd(process_.number);
  reapProcess(process_.number);
  const since = (name: string) => {
    const at = metrics.indexOf(`${name}\0`);
    return Number(metrics.readBigUInt64LE(at + 40) - started) / 1000;
  };
  return { cpu, toMain: since("process_ns"), toSocket: since("served_ns"), toGuest: since("boot_timer_1") };
}

async function measure(requests: (listener: number) => Request[]) {
  using directory = new TemporaryDirectory();
  using listener = unixListen(join(directory.path, "vsock"));
  const times: Times[] = [];
  for (let round = 0; round < rounds + 3; round++) times.push(await run(requests(listener.number)));
  const kept = times.slice(3);
  const column = (name: keyof Times): Summary => summarize(kept.map((time) => time[name]));
  return {
    cpu: column("cpu"),
    toMain: column("toMain"),
    toSocket: column("toSocket"),
    toGuest: column("toGuest"),
  };
}

const results = {
  "no devices": await measure(() => machine([])),
  "boot devices": await measure((listener) => machine(bootDevices(listener))),
};
printResult("vmm-start", { unit: "us", rounds, results });
process.exit(0);
