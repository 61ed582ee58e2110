import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { type Fd, memfd, O, openFd } from "#sys/fd.ts";
import { waitReadable } from "#sys/poller.ts";
import { type ProcessEnd, pidfdSendSignal, reapProcess, waitPidfd } from "#sys/process.ts";
import { receiveFds, sendFds, unixConnect, unixListen } from "#sys/socket.ts";
import { NAMESPACE, spawn } from "#sys/spawn.ts";
import { TemporaryDirectory } from "./container.ts";
import { testIf } from "./skip.ts";

/** Needs a /dev/kvm of any kind. */
export const vmmTest = testIf(existsSync("/dev/kvm") && process.getuid?.() === 0, "needs root and /dev/kvm");

const root = join(import.meta.dir, "../..");
export const WORKER_ID = 61_234;

/** The namespaces that hako-vmm is born into; that of the network it makes itself. */
export const WORKER_NAMESPACES =
  NAMESPACE.MOUNT | NAMESPACE.PID | NAMESPACE.IPC | NAMESPACE.UTS | NAMESPACE.CGROUP;

const HEADER = 16;
const MESSAGE_MAX = 131_072;

export interface Message {
  readonly type: number;
  readonly id: number;
  /** 0, or -errno; then the payload is text. */
  readonly status: number;
  readonly payload: Buffer;
}

/** struct hako_header of native/vmm/wire.h, and the payload. */
export function encodeMessage(
  type: number,
  id: number,
  payload: Uint8Array = new Uint8Array(),
  wrong: { length?: number; version?: number; status?: number } = {},
): Buffer {
  const header = Buffer.alloc(HEADER);
  header.writeUInt32LE(wrong.length ?? HEADER + payload.length, 0);
  header.writeUInt16LE(wrong.version ?? 1, 4);
  header.writeUInt16LE(type, 6);
  header.writeUInt32LE(id, 8);
  header.writeInt32LE(wrong.status ?? 0, 12);
  return Buffer.concat([header, payload]);
}

/** One connection to a worker that says exactly what it is told, right or wrong. */
export class WorkerConnection implements Disposable {
  readonly #socket: Fd;
  #nextId = 1;

  constructor(socket: Fd) {
    this.#socket = socket;
  }

  sendRaw(bytes: Uint8Array, fds: readonly number[] = []): void {
    sendFds(this.#socket.number, bytes, fds);
  }

  /** The next packet, or undefined when the worker has closed the connection. */
  async receive(): Promise<Message | undefined> {
    const buffer = Buffer.alloc(MESSAGE_MAX);
    for (;;) {
      const message = receiveFds(this.#socket.number, buffer, 20);
      if (message === "closed") return undefined;
      if (message !== "again") {
        for (const fd of message.fds) fd.close();
        return {
          type: buffer.readUInt16LE(6),
          id: buffer.readUInt32LE(8),
          status: buffer.readInt32LE(12),
          payload: Buffer.from(buffer.subarray(HEADER, message.length)),
        };
      }
      await waitReadable(this.#socket.number);
    }
  }

  /** Sends a request and returns what comes next, which must be its answer. */
  async request(type: number, payload?: Uint8Array, fds: readonly number[] = []): Promise<Message> {
    const id = this.#nextId++;
    this.sendRaw(encodeMessage(type, id, payload), fds);
    const reply = await this.receive();
    if (reply?.id !== id) throw new Error(`Request ${type} got ${JSON.stringify(reply)} as its answer`);
    return reply;
  }

  /** Sends a request and returns what comes next, whatever it is. */
  async receiveAfter(type: number, payload?: Uint8Array): Promise<Message | undefined> {
    this.sendRaw(encodeMessage(type, this.#nextId++, payload));
    return this.receive();
  }

  /** A request that must succeed; its answer's payload. */
  async succeed(type: number, payload?: Uint8Array, fds: readonly number[] = []): Promise<Buffer> {
    const reply = await this.request(type, payload, fds);
    if (reply.status !== 0) throw new Error(`Request ${type} failed with ${reply.status}: ${reply.payload}`);
    return reply.payload;
  }

  close(): void {
    this.#socket.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

export interface WorkerOptions {
  /** Another build of hako-vmm. */
  readonly program?: string;
  /** User and group as the command line gives them. */
  readonly ids?: readonly string[];
  readonly environment?: readonly string[];
}

/** A running hako-vmm without a manager. */
export class VmmWorker implements AsyncDisposable {
  readonly pid: number;
  readonly pidfd: Fd;
  readonly #directory: TemporaryDirectory;
  readonly #log: Fd;
  #end: ProcessEnd | undefined;

  constructor(options: WorkerOptions = {}) {
    const { program = join(root, "dist/native/hako-vmm"), ids = [`${WORKER_ID}`, `${WORKER_ID}`] } = options;
    const environment = options.environment ?? [];
    this.#directory = new TemporaryDirectory();
    this.#log = memfd("worker-log");
    using listener = unixListen(this.#socketPath, "seqpacket");
    using file = memfd("hako-vmm", readFileSync(program));
    using none = openFd("/dev/null", O.RDWR);
    const { pid, pidfd } = spawn({
      program: file.number,
      arguments: ["hako-vmm", ...ids],
      environment,
      fds: [none.number, none.number, this.#log.number, listener.number],
      namespaces: WORKER_NAMESPACES,
    });
    this.pid = pid;
    this.pidfd = pidfd;
  }

  get #socketPath(): string {
    return join(this.#directory.path, "control");
  }

  /** What it wrote to its standard error. */
  get log(): string {
    return readFileSync(`/proc/self/fd/${this.#log.number}`, "utf8");
  }

  async connect(): Promise<WorkerConnection> {
    return new WorkerConnection(await unixConnect(this.#socketPath, undefined, "seqpacket"));
  }

  /** Resolves once the process is gone. */
  async ended(): Promise<ProcessEnd> {
    await waitPidfd(this.pidfd.number);
    this.#end ??= reapProcess(this.pidfd.number);
    if (!this.#end) throw new Error(`Process ${this.pid} ended without a trace`);
    return this.#end;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    pidfdSendSignal(this.pidfd.number, 9);
    await this.ended();
    this.pidfd.close();
    this.#log.close();
    this.#directory[Symbol.dispose]();
  }
}
