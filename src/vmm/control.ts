import { withDeadline } from "#base/deadline.ts";
import { HakoError } from "#base/error.ts";
import { abortable } from "#base/mutex.ts";
import { E, isErrno, SystemError } from "#sys/errno.ts";
import type { Fd } from "#sys/fd.ts";
import { waitReadable, waitWritable } from "#sys/poller.ts";
import { receiveFds, sendFds } from "#sys/socket.ts";
import { EVENT, REQUEST, type RequestName, WIRE } from "./wire.ts";
import {
  type DeviceEvent,
  decodeDeviceEvent,
  decodeExitEvent,
  decodeHeader,
  decodeVsockEvent,
  type ExitEvent,
  encodeMessage,
  HEADER_SIZE,
} from "./wire-format.ts";

/** hako-vmm understood a request and refused it; the text is its own. */
export class VmmError extends HakoError {
  readonly errno: number;

  constructor(request: RequestName, errno: number, text: string) {
    const { code, message } = new SystemError(`hako-vmm refused ${request}`, errno);
    super(code, text === "" ? message : `hako-vmm refused ${request}: ${text}`);
    this.name = "VmmError";
    this.errno = errno;
  }
}

/** What hako-vmm tells by itself. */
export interface ControlEvents {
  exit(event: ExitEvent): void;
  device(event: DeviceEvent): void;
  /** The guest has connected to a port of the host; the descriptor is the callee's. */
  vsock(event: { readonly slot: number; readonly port: number }, stream: Fd): void;
}

interface Pending {
  readonly name: RequestName;
  resolve(payload: Buffer): void;
  reject(error: HakoError): void;
}

interface RequestOptions {
  readonly fds?: readonly number[];
  readonly signal?: AbortSignal | undefined;
}

/** Answers come within microseconds; this is for a host that stands still and for memory that has to be loaded. */
const REQUEST_TIMEOUT_MS = 60_000;

/** The control connection to one hako-vmm (native/vmm/wire.h): requests with answers, in order, and events. */
export class ControlClient implements Disposable {
  readonly #socket: Fd;
  readonly #events: Partial<ControlEvents>;
  readonly #stop = new AbortController();
  readonly #pending = new Map<number, Pending>();
  #sending: Promise<void> = Promise.resolve();
  #queued = 0;
  #nextId = 1;
  #failure: HakoError | undefined;
  /** Resolves when the connection has ended, by whatever cause; all events that came have been told by then. */
  readonly closed: Promise<void>;

  /** Takes over a connected SOCK_SEQPACKET socket. */
  constructor(socket: Fd, events: Partial<ControlEvents> = {}) {
    this.#socket = socket;
    this.#events = events;
    this.closed = this.#run();
  }

  /**
   * Sends one request and resolves to its answer's payload. Requests may be sent without waiting for the answers of
   * earlier ones: hako-vmm carries them out in order. `fds` must stay open until it resolves. Throws VmmError on
   * refusal, UNAVAILABLE when hako-vmm ends, CANCELLED on the signal: the request may then still take effect.
   */
  request(name: RequestName, payload: Uint8Array = new Uint8Array(), options: RequestOptions = {}) {
    const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
    if (this.#failure) return Promise.reject<Buffer>(this.#failure);
    const id = this.#nextId++;
    this.#pending.set(id, { name, resolve, reject });
    this.#send(encodeMessage(REQUEST[name], id, payload), options.fds ?? [], reject);
    const answered = (signal: AbortSignal) => abortable(promise, signal);
    const what = `have ${name} done by hako-vmm`;
    return withDeadline(REQUEST_TIMEOUT_MS, what, answered, options.signal).finally(() =>
      this.#pending.delete(id),
    );
  }

  close(): void {
    this.#stop.abort();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** At once while the socket takes it, else in turn. */
  #send(message: Buffer, fds: readonly number[], reject: (error: HakoError) => void): void {
    if (this.#queued === 0 && this.#sendNow(message, fds, reject)) return;
    this.#queued++;
    this.#sending = this.#sending.then(async () => {
      try {
        while (!this.#sendNow(message, fds, reject)) {
          await waitWritable(this.#socket.number, this.#stop.signal);
        }
      } catch (error) {
        reject(HakoError.from(error));
      }
      this.#queued--;
    });
  }

  /** False when there is no room now. */
  #sendNow(message: Buffer, fds: readonly number[], reject: (error: HakoError) => void): boolean {
    try {
      sendFds(this.#socket.number, message, fds);
    } catch (error) {
      if (isErrno(error, E.EAGAIN)) return false;
      // When hako-vmm is gone its last words may still be in the socket: they are read first.
      if (!isErrno(error, E.EPIPE) && !isErrno(error, E.ECONNRESET)) reject(HakoError.from(error));
    }
    return true;
  }

  async #run(): Promise<void> {
    let failure = new HakoError("UNAVAILABLE", "The control connection to hako-vmm has ended");
    try {
      await this.#readAll();
    } catch (error) {
      if (!this.#stop.signal.aborted) failure = HakoError.from(error, "UNAVAILABLE");
    }
    this.#failure = failure;
    this.#stop.abort();
    this.#socket.close();
    for (const { reject } of this.#pending.values()) reject(failure);
    this.#pending.clear();
  }

  async #readAll(): Promise<void> {
    const buffer = Buffer.allocUnsafe(WIRE.MESSAGE_MAX);
    for (;;) {
      await waitReadable(this.#socket.number, this.#stop.signal);
      for (;;) {
        const message = receiveFds(this.#socket.number, buffer, WIRE.MESSAGE_FDS_MAX);
        if (message === "again") break;
        if (message === "closed") return;
        this.#take(Buffer.from(buffer.subarray(0, message.length)), message.fds);
      }
    }
  }

  #take(message: Buffer, fds: readonly Fd[]): void {
    const header = decodeHeader(message);
    const payload = message.subarray(HEADER_SIZE);
    if (header.type === EVENT.EVENT_VSOCK && fds[0]) {
      const [stream, ...rest] = fds;
      for (const fd of rest) fd.close();
      if (this.#events.vsock) this.#events.vsock(decodeVsockEvent(payload), stream);
      else stream.close();
      return;
    }
    for (const fd of fds) fd.close();
    if (header.type === EVENT.EVENT_EXIT) this.#events.exit?.(decodeExitEvent(payload));
    else if (header.type === EVENT.EVENT_DEVICE) this.#events.device?.(decodeDeviceEvent(payload));
    else this.#answer(header.id, header.type, header.status, payload);
  }

  #answer(id: number, type: number, status: number, payload: Buffer): void {
    const pending = this.#pending.get(id);
    // Whoever asked may have given up.
    if (!pending) return;
    this.#pending.delete(id);
    if (type !== (REQUEST[pending.name] | WIRE.REPLY)) {
      pending.reject(new HakoError("DATA_LOSS", `hako-vmm answered ${pending.name} with message ${type}`));
    } else if (status < 0) {
      pending.reject(new VmmError(pending.name, -status, payload.toString("utf8", 0, WIRE.ERROR_TEXT_MAX)));
    } else {
      pending.resolve(payload);
    }
  }
}
