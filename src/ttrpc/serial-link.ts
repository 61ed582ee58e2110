import { HakoError } from "#base/error.ts";
import { ByteInbox } from "#sys/byte-inbox.ts";
import type { ByteStream, ByteStreamHandlers } from "#sys/byte-stream.ts";
import { encodeGreeting, encodeSerial, type GreetingKind, makeNonce, SerialDecoder } from "./serial-codec.ts";

/**
 * Sessions over a byte stream that outlives its users, such as a virtio-serial port: the agent keeps its end open
 * while managers come and go at the other. Without more, a new manager's first frame would end in the middle of
 * its predecessor's last, and it would read the rest of an answer to somebody else.
 *
 * The client sends a hello with a random nonce and drops all bytes until the server accepts that very nonce. The
 * server ends the session before, drops what it has of an unfinished frame, accepts, and starts anew. Either side
 * says when it closes a session; a client that dies is noticed by its hang-up, if the device tells, or by the next.
 */

/** A server may lose a hello when its port is closed and opened again: the client repeats it. */
const HELLO_INTERVAL_MS = 250;

/** How long a link that takes nothing may delay the end of a session that was closed. */
const GOODBYE_MS = 100;

/** What a session that was replaced may still have on its way, in bytes: pieces of a write are given out one by one. */
const PIECE_LENGTH = 64 * 1024;

/** One session: a ByteStream whose bytes are escaped on the link. */
class SerialSession implements ByteStream {
  readonly nonce: string;
  readonly #link: ByteStream;
  readonly #onClose: () => void;
  readonly #inbox = new ByteInbox((held) => this.#setHeld(held));
  #held: PromiseWithResolvers<void> | undefined;

  /** `onClose` is called when the owner of the session has closed it and the peer was told. */
  constructor(link: ByteStream, nonce: string, onClose: () => void) {
    this.#link = link;
    this.nonce = nonce;
    this.#onClose = onClose;
  }

  start(handlers: ByteStreamHandlers): void {
    this.#inbox.start(handlers);
  }

  async write(bytes: Uint8Array): Promise<void> {
    for (let offset = 0; offset < bytes.length; offset += PIECE_LENGTH) {
      if (this.#inbox.ended) throw new HakoError("UNAVAILABLE", "Cannot write: the session has ended");
      await this.#link.write(encodeSerial(bytes.subarray(offset, offset + PIECE_LENGTH)));
    }
  }

  close(): void {
    if (this.#inbox.ended) return;
    this.end();
    const goodbye = greet(this.#link, "close", this.nonce);
    void Promise.race([goodbye, Bun.sleep(GOODBYE_MS)]).then(this.#onClose);
  }

  receive(chunk: Uint8Array): void {
    this.#inbox.push(chunk);
  }

  /** A promise for the time when the session takes more; undefined when it does now. */
  get held(): Promise<void> | undefined {
    return this.#held?.promise;
  }

  end(error?: HakoError): void {
    this.#inbox.end(error, true);
    this.#setHeld(false);
  }

  #setHeld(held: boolean): void {
    if (held) {
      this.#held ??= Promise.withResolvers<void>();
      return;
    }
    this.#held?.resolve();
    this.#held = undefined;
  }
}

/** Sends a greeting. A failure ends the link, which its `close` handler reports. */
function greet(link: ByteStream, kind: GreetingKind, nonce: string): Promise<void> {
  return link.write(encodeGreeting(kind, nonce)).catch(() => undefined);
}

/**
 * Answers the hellos of a link, each with a new session handed to `accept`; the session before ends with ABORTED.
 * A session for which `accept` throws (a server that has stopped) is closed.
 * Takes the link over; resolves, with the reason if there is one, when it ends.
 */
export function serveSerialLink(
  link: ByteStream,
  accept: (session: ByteStream) => void,
): Promise<HakoError | undefined> {
  const { promise, resolve } = Promise.withResolvers<HakoError | undefined>();
  let session: SerialSession | undefined;
  const replace = (next?: SerialSession, error?: HakoError) => {
    const previous = session;
    session = next;
    previous?.end(error);
  };
  const offer = (next: SerialSession) => {
    try {
      accept(next);
    } catch {
      // Whoever does not want the session says so to the client by its end.
      next.close();
    }
  };
  const hello = (nonce: string) => {
    if (session?.nonce === nonce) {
      void greet(link, "accept", nonce);
      return;
    }
    const next = new SerialSession(link, nonce, () => undefined);
    replace(next, new HakoError("ABORTED", "Another client has taken the serial link"));
    void greet(link, "accept", nonce);
    offer(next);
  };
  const decoder = new SerialDecoder({
    bytes: (chunk) => session?.receive(chunk),
    damaged: () => replace(undefined, new HakoError("DATA_LOSS", "The serial link lost bytes")),
    greeting: (kind, nonce) => {
      if (kind === "hello") hello(nonce);
      else if (kind === "close" && nonce === session?.nonce) replace();
    },
  });
  link.start({
    data: (chunk) => {
      decoder.push(chunk);
      return session?.held;
    },
    hangUp: () => replace(),
    close: (error) => {
      replace(undefined, error);
      resolve(error);
    },
  });
  return promise;
}

/**
 * Starts a session with the server of a link. Takes the link over: it ends with the session, and when this throws.
 * Throws CANCELLED on the signal, UNAVAILABLE when the link ends.
 */
export async function openSerialSession(link: ByteStream, signal?: AbortSignal): Promise<ByteStream> {
  const { promise: accepted, resolve, reject } = Promise.withResolvers<void>();
  const nonce = makeNonce();
  const session = new SerialSession(link, nonce, () => link.close());
  let open = false;
  const fail = (error: HakoError) => {
    reject(error);
    session.end(error);
    link.close();
  };
  const decoder = new SerialDecoder({
    bytes: (chunk) => {
      if (open) session.receive(chunk);
    },
    damaged: () => {
      if (open) fail(new HakoError("DATA_LOSS", "The serial link lost bytes"));
    },
    greeting: (kind, given) => {
      if (given !== nonce) return;
      if (kind === "close") fail(new HakoError("UNAVAILABLE", "The server closed the session"));
      if (kind !== "accept") return;
      open = true;
      resolve();
    },
  });
  link.start({
    data: (chunk) => {
      decoder.push(chunk);
      return session.held;
    },
    close: (error) => fail(error ?? new HakoError("UNAVAILABLE", "The serial link was closed")),
  });
  const onAbort = () =>
    fail(new HakoError("CANCELLED", "Cannot open a serial session: cancelled", { cause: signal?.reason }));
  signal?.addEventListener("abort", onAbort, { once: true });
  if (signal?.aborted) onAbort();
  void greet(link, "hello", nonce);
  const timer = setInterval(() => greet(link, "hello", nonce), HELLO_INTERVAL_MS);
  try {
    await accepted;
    return session;
  } finally {
    clearInterval(timer);
    signal?.removeEventListener("abort", onAbort);
  }
}
