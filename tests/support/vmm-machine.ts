import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type Fd, O, openFd, pipe, readFd } from "#sys/fd.ts";
import { type Message, VmmWorker, type WorkerConnection } from "./vmm-worker.ts";

const header = readFileSync(join(import.meta.dir, "../../native/vmm/wire.h"), "utf8");
const states = readFileSync(join(import.meta.dir, "../../native/vmm/state.h"), "utf8");

/** A number of native/vmm/wire.h or state.h by its name there, without "HAKO_". */
export function wire(name: string): number {
  const match = new RegExp(`^#define HAKO_${name}\\s+(\\w+)`, "m").exec(header + states);
  if (!match?.[1]) throw new Error(`native/vmm has no HAKO_${name}`);
  return Number(match[1]);
}

/** Unsigned integers one after the other: a number has 4 bytes, a bigint 8. */
export function words(...values: (number | bigint)[]): Buffer {
  return Buffer.concat(
    values.map((value) => {
      const bytes = Buffer.alloc(typeof value === "bigint" ? 8 : 4);
      if (typeof value === "bigint") bytes.writeBigUInt64LE(value);
      else bytes.writeUInt32LE(value);
      return bytes;
    }),
  );
}

export interface MachineOptions {
  readonly vcpus?: number;
  /** How many of them may run at first. Default: all. */
  readonly running?: number;
  /** Bytes of memory from address 0 on. Default: 2 MiB. */
  readonly memory?: number;
  /** File behind the memory. Default: anonymous. */
  readonly file?: Fd;
  readonly flags?: number;
}

export const POWER_PORT = 0x600;
export const MMIO_BASE = 0xd000_0000n;
const MMIO_SIZE = 0x10_0000n;
/** Slots of the guest's memory, and of the page below 4 GiB where a processor begins. */
export const RAM_SLOT = 0;
export const ROM_SLOT = 1;
const RESET_VECTOR = 0xffff_fff0n;
const ROM = 0xffff_f000n;
/** Where the page begins as the processor sees it: its code segment begins at 0xffff0000 after a reset. */
const ROM_OFFSET = 0xf000;

/** struct hako_machine_create */
export function machineCreate(vcpus: number, running = vcpus): Buffer {
  const flags = wire("CREATE_SERIAL") | wire("CREATE_I8042") | wire("CREATE_BOOT_TIMER");
  return words(vcpus, running, flags, POWER_PORT, MMIO_BASE, MMIO_SIZE);
}

/** struct hako_memory_add */
export function memoryAdd(slot: number, gpa: bigint, size: bigint, flags = 0): Buffer {
  return words(slot, flags, gpa, size, 0n);
}

/**
 * A worker with a machine whose processors begin at the reset vector, in real mode as real ones do, and run `code`
 * (16-bit, position independent, at offset 0 of the page). It has not been started.
 */
export class TestMachine implements AsyncDisposable {
  readonly worker: VmmWorker;
  readonly manager: WorkerConnection;
  readonly #console: Fd;

  private constructor(worker: VmmWorker, manager: WorkerConnection, console: Fd) {
    this.worker = worker;
    this.manager = manager;
    this.#console = console;
  }

  static async create(code: readonly number[], options: MachineOptions = {}, worker = new VmmWorker()) {
    const manager = await worker.connect();
    using kvm = openFd("/dev/kvm", O.RDWR);
    const output = pipe(O.NONBLOCK);
    const machine = new TestMachine(worker, manager, output.read);
    await manager.succeed(wire("MACHINE_CREATE"), machineCreate(options.vcpus ?? 1, options.running), [
      kvm.number,
      output.write.number,
    ]);
    output.write.close();
    const ram = memoryAdd(RAM_SLOT, 0n, BigInt(options.memory ?? 2 << 20), options.flags ?? 0);
    await manager.succeed(wire("MEMORY_ADD"), ram, options.file ? [options.file.number] : []);
    await manager.succeed(wire("MEMORY_ADD"), memoryAdd(ROM_SLOT, ROM, 4096n));
    await machine.write(ROM, Buffer.from(code));
    // jmp near to the page's beginning
    const distance = (ROM_OFFSET - (Number(RESET_VECTOR & 0xffffn) + 3)) & 0xffff;
    await machine.write(RESET_VECTOR, Buffer.from([0xe9, distance & 0xff, distance >> 8]));
    return machine;
  }

  async write(gpa: bigint, bytes: Uint8Array): Promise<void> {
    await this.manager.succeed(wire("MEMORY_WRITE"), Buffer.concat([words(gpa), bytes]));
  }

  async start(): Promise<void> {
    await this.manager.succeed(wire("START"));
  }

  /** The next message, which must be the exit event. */
  async exit(): Promise<{ reason: number; vcpu: number; detail: bigint; text: string }> {
    return decodeExit(await this.manager.receive());
  }

  /** What the serial port has said so far. */
  console(): string {
    const buffer = Buffer.alloc(65_536);
    const length = readFd(this.#console.number, buffer);
    return buffer.toString("latin1", 0, Math.max(0, length));
  }

  /** By name; those of a device as "slot:name". */
  async metrics(): Promise<Map<string, bigint>> {
    return decodeMetrics(await this.manager.succeed(wire("METRICS")));
  }

  async state(): Promise<number> {
    return (await this.manager.succeed(wire("HELLO"))).readUInt32LE(0);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.manager.close();
    this.#console.close();
    await this.worker[Symbol.asyncDispose]();
  }
}

/** struct hako_exit_event and its text. */
export function decodeExit(message: Message | undefined) {
  if (message?.type !== wire("EVENT_EXIT"))
    throw new Error(`Got ${JSON.stringify(message)} in place of the exit event`);
  return {
    reason: message.payload.readUInt32LE(0),
    vcpu: message.payload.readUInt32LE(4),
    detail: message.payload.readBigUInt64LE(8),
    text: message.payload.toString("utf8", 16),
  };
}

/** struct hako_metric[] */
function decodeMetrics(bytes: Buffer): Map<string, bigint> {
  const metrics = new Map<string, bigint>();
  for (let at = 0; at < bytes.length; at += 48) {
    const name = bytes.toString("latin1", at, bytes.indexOf(0, at));
    const slot = bytes.readUInt32LE(at + 32);
    metrics.set(slot === wire("NO_DEVICE") ? name : `${slot}:${name}`, bytes.readBigUInt64LE(at + 40));
  }
  return metrics;
}

/** struct hako_section, content and padding. */
export function section(kind: number, content: Uint8Array): Buffer {
  const padding = Buffer.alloc(-content.length & 7);
  return Buffer.concat([words(kind, content.length), content, padding]);
}

export function decodeSections(bytes: Buffer): Map<number, Buffer> {
  const sections = new Map<number, Buffer>();
  for (let at = 0; at < bytes.length; ) {
    const length = bytes.readUInt32LE(at + 4);
    sections.set(bytes.readUInt32LE(at), bytes.subarray(at + 8, at + 8 + length));
    at += 8 + Math.ceil(length / 8) * 8;
  }
  return sections;
}
