import { HakoError } from "#base/error.ts";
import { ByteInbox } from "./byte-inbox.ts";
import { check, E, SystemError } from "./errno.ts";
import { type Fd, readFd, setNonBlocking, writeFd } from "./fd.ts";
import { waitReadable, waitWritable } from "./poller.ts";

/** Who is told of what a {@link ByteStream} brings. */
export interface ByteStreamHandlers {
  /** The chunk belongs to the handler. A promise holds further chunks back until it settles (back-pressure). */
  data(chunk: Uint8Array): void | Promise<void>;
  /** The other end of a device has gone for now: called again and again until it is back. */
  hangUp?(): void;
  /** Called once: the peer closed (no error), we closed, or the stream broke. */
  close(error?: HakoError): void;
}

/**
 * An ordered stream of bytes in both directions: a socket, a virtio-serial port, a pair in memory.
 * `start` is called once, before the first `write`.
 */
export interface ByteStream {
  start(handlers: ByteStreamHandlers): void;
  /** Resolves when the bytes were taken (back-pressure); throws UNAVAILABLE once closed. The bytes must not change. */
  write(bytes: Uint8Array): Promise<void>;
  /** Ends both directions at once; idempotent. */
  close(): void;
}

/** Bytes of one read of a device. */
const READ_SIZE = 64 * 1024;

interface PendingWrite {
  readonly bytes: Uint8Array;
  offset: number;
  resolve(): void;
  reject(error: HakoError): void;
}

function closedError(cause?: unknown): HakoError {
  return new HakoError(
    "UNAVAILABLE",
    "Cannot write: the stream is closed",
    cause === undefined ? {} : { cause },
  );
}

/** Writes of a stream in their order; `push` hands bytes to the descriptor and says how many it took. */
class WriteQueue {
  readonly #queue: PendingWrite[] = [];
  readonly #push: (bytes: Uint8Array) => number;
  #closed: HakoError | undefined;

  constructor(push: (bytes: Uint8Array) => number) {
    this.#push = push;
  }

  write(bytes: Uint8Array): Promise<void> {
    if (this.#closed) return Promise.reject(this.#closed);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#queue.push({ bytes, offset: 0, resolve, reject });
    if (this.#queue.length === 1) this.flush();
    return promise;
  }

  get pending(): boolean {
    return this.#queue.length > 0;
  }

  /** Pushes until the queue is empty or the descriptor is full. */
  flush(): void {
    for (let head = this.#queue[0]; head; head = this.#queue[0]) {
      if (head.offset < head.bytes.length) {
        const taken = this.#push(head.bytes.subarray(head.offset));
        if (taken < 0) return;
        head.offset += taken;
      }
      if (head.offset < head.bytes.length) return;
      this.#queue.shift();
      head.resolve();
    }
  }

  close(error: HakoError): void {
    this.#closed ??= error;
    for (const pending of this.#queue.splice(0)) pending.reject(this.#closed);
  }
}

/** bun-types do not know yet that Bun.connect takes a connected descriptor. */
type ConnectedSocketOptions = Omit<Bun.UnixSocketOptions<undefined>, "unix"> & { fd: number };
const adoptSocket = Bun.connect as unknown as (
  options: ConnectedSocketOptions,
) => Promise<Bun.Socket<undefined>>;

/** A stream over a connected stream socket (unix, vsock, TCP). Takes the descriptor over. */
export async function socketStream(socket: Fd): Promise<ByteStream> {
  const stream = new SocketStream();
  stream.connection = await adoptSocket({ fd: socket.release(), socket: stream });
  return stream;
}

/** Bun's socket handlers on one side, a ByteStream on the other. */
class SocketStream implements ByteStream, Bun.SocketHandler<undefined, "uint8array"> {
  readonly binaryType = "uint8array";
  connection: Bun.Socket<undefined> | undefined;
  readonly #inbox = new ByteInbox((held) => (held ? this.connection?.pause() : this.connection?.resume()));
  readonly #queue = new WriteQueue((bytes) =>
    this.#inbox.ended ? -1 : (this.connection?.write(bytes) ?? -1),
  );

  start(handlers: ByteStreamHandlers): void {
    this.#inbox.start(handlers);
  }

  // Bun calls the handlers as properties of the object, so they are bound.
  readonly write = (bytes: Uint8Array): Promise<void> => this.#queue.write(bytes);

  readonly data = (_: unknown, chunk: Uint8Array): void => this.#inbox.push(chunk);

  readonly drain = (): void => this.#queue.flush();

  /** The peer will send no more; half-open connections are not used, so we end too. */
  readonly end = (): void => {
    this.connection?.end();
  };

  readonly error = (_: unknown, cause: Error): void => this.#finish(cause, false);

  /** Called by Bun with the socket when the connection has ended, and by the owner without. */
  readonly close = (socket?: unknown, cause?: Error): void => {
    this.connection?.terminate();
    this.#finish(cause, socket === undefined);
  };

  #finish(cause: Error | undefined, drop: boolean): void {
    if (this.#inbox.ended && !drop) return;
    const error = cause && new HakoError("UNAVAILABLE", "The connection broke", { cause });
    this.#queue.close(closedError(cause));
    this.#inbox.end(error, drop);
  }
}

/**
 * A stream over a character device or pty (virtio-serial port, terminal). Takes the descriptor over.
 * A port whose other end is not open reads as hung up; that is waited out, not taken as the end.
 */
export function deviceStream(device: Fd, options: { hangUpIsEnd: boolean }): ByteStream {
  const stop = new AbortController();
  let handlers: ByteStreamHandlers | undefined;
  let closed = false;
  let writing = false;
  let hungUp = false;
  let pauseMs = FIRST_HANG_UP_PAUSE_MS;

  setNonBlocking(device.number);
  const queue = new WriteQueue((bytes) => {
    const taken = writeFd(device.number, bytes);
    if (taken >= 0) return taken;
    if (taken !== -E.EAGAIN) end(new SystemError("Cannot write to the device", -taken));
    return -1;
  });
  const end = (error?: HakoError) => {
    if (closed) return;
    closed = true;
    stop.abort();
    device.close();
    queue.close(closedError(error));
    handlers?.close(error);
  };
  const readLoop = async () => {
    while (!closed) {
      await waitReadable(device.number, stop.signal);
      const buffer = new Uint8Array(READ_SIZE);
      const length = readFd(device.number, buffer);
      hungUp = length === 0 || length === -E.EIO;
      if (length > 0) {
        pauseMs = FIRST_HANG_UP_PAUSE_MS;
        await handlers?.data(buffer.subarray(0, length));
      } else if (hungUp) {
        if (options.hangUpIsEnd) return end();
        handlers?.hangUp?.();
        await Bun.sleep(pauseMs);
        pauseMs = Math.min(pauseMs * 2, LAST_HANG_UP_PAUSE_MS);
      } else if (length !== -E.EAGAIN) {
        check(length, "Cannot read from the device");
      }
    }
  };
  const writeLoop = async () => {
    if (writing) return;
    writing = true;
    while (queue.pending && !closed) {
      // A port that is hung up counts as writable and takes nothing.
      if (hungUp) await Bun.sleep(pauseMs);
      await waitWritable(device.number, stop.signal);
      if (!closed) queue.flush();
    }
    writing = false;
  };
  const failed = (error: unknown) => end(HakoError.from(error));
  return {
    start(given) {
      handlers = given;
      readLoop().catch(failed);
    },
    write(bytes) {
      const done = queue.write(bytes);
      if (queue.pending) writeLoop().catch(failed);
      return done;
    },
    close: () => end(),
  };
}

/** A port whose other end is not open is always "readable": looking again ever less often keeps the wait cheap. */
const FIRST_HANG_UP_PAUSE_MS = 10;
const LAST_HANG_UP_PAUSE_MS = 200;

/** Two connected streams in memory, for tests and for services in the same process. */
export function memoryStreamPair(): [ByteStream, ByteStream] {
  const left = new MemoryStream();
  const right = new MemoryStream();
  left.peer = right;
  right.peer = left;
  return [left, right];
}

class MemoryStream implements ByteStream {
  peer: MemoryStream | undefined;
  readonly #inbox = new ByteInbox();

  start(handlers: ByteStreamHandlers): void {
    this.#inbox.start(handlers);
  }

  async write(bytes: Uint8Array): Promise<void> {
    const peer = this.peer;
    if (this.#inbox.ended || !peer || peer.#inbox.ended) throw closedError();
    const chunk = Uint8Array.from(bytes);
    await null;
    if (!(await new Promise<boolean>((taken) => peer.#inbox.push(chunk, taken)))) throw closedError();
  }

  close(): void {
    this.#inbox.end(undefined, true);
    if (this.peer) this.peer.#inbox.end(undefined, false);
  }
}
