import { HakoError } from "#base/error.ts";
import { insideNetwork } from "#linux/network-namespace.ts";
import { check, E } from "#sys/errno.ts";
import { Fd, O } from "#sys/fd.ts";
import { SYS, syscall } from "#sys/syscall.ts";
import {
  checkOutcome,
  decodeMessages,
  encodeMessage,
  type NetlinkMessage,
  NLM_F,
  NLMSG_DONE,
  NLMSG_ERROR,
} from "./message.ts";

// linux/socket.h, linux/netlink.h
const AF_NETLINK = 16;
const SOCK_RAW = 3;
/** Families of netlink: links, addresses and routes; packet filters. */
const PROTOCOLS = { route: 0, netfilter: 12 } as const;
const SOL_NETLINK = 270;
const NETLINK_CAP_ACK = 10;
const NETLINK_EXT_ACK = 11;
const NETLINK_GET_STRICT_CHK = 12;
const MSG_DONTWAIT = 0x40;
const MSG_TRUNC = 0x20;

/** struct sockaddr_nl: u16 family, u16 padding, u32 port, u32 groups. */
const SOCKADDR_LENGTH = 12;

/** The kernel makes dump messages of at most 32 KiB when it is given this much room. */
const RECEIVE_LENGTH = 64 * 1024;

/** Messages of one dump. A host's full routing table may be longer: ask for less. */
const MAX_DUMP_MESSAGES = 100_000;

/** A dump is taken again, at most so often, when the kernel's tables changed meanwhile. */
const DUMP_TRIES = 10;

/** One message of a batch. */
export interface NetlinkRequest {
  readonly type: number;
  readonly flags: number;
  readonly body: Uint8Array;
}

/**
 * A connection to rtnetlink of one network namespace. The kernel answers a request within the call that sends it,
 * so nothing here waits for a peer; all functions are synchronous. Not to be used from two places at once.
 */
export class NetlinkSocket implements Disposable {
  readonly #fd: Fd;
  readonly #buffer = Buffer.alloc(RECEIVE_LENGTH);
  #sequence = 0;

  private constructor(fd: Fd) {
    this.#fd = fd;
  }

  /**
   * Opens a socket in the network namespace of the calling thread, or in the one whose descriptor is given; the
   * thread is back in its own when this returns. Throws PERMISSION_DENIED without the right to enter it.
   */
  static open(namespaceFd?: number, protocol: keyof typeof PROTOCOLS = "route"): NetlinkSocket {
    const make = () => openSocket(PROTOCOLS[protocol]);
    const fd = namespaceFd === undefined ? make() : insideNetwork(namespaceFd, make);
    try {
      setOption(fd, NETLINK_EXT_ACK);
      setOption(fd, NETLINK_CAP_ACK);
      setOption(fd, NETLINK_GET_STRICT_CHK);
      return new NetlinkSocket(fd);
    } catch (error) {
      fd.close();
      throw error;
    }
  }

  /**
   * Makes a change. Throws the kernel's error: NOT_FOUND, ALREADY_EXISTS, INVALID_ARGUMENT …, with the kernel's
   * own words behind `action` where it gives any.
   */
  change(type: number, flags: number, body: Uint8Array, action: string): void {
    const sequence = this.#send(type, flags | NLM_F.ACK, body, action);
    this.#collect(sequence, action);
  }

  /**
   * Makes several changes at once, all or none, between the two messages that begin and end a batch of nfnetlink.
   * Throws what the kernel says to the first that it refuses.
   */
  batch(
    begin: NetlinkRequest,
    changes: readonly NetlinkRequest[],
    end: NetlinkRequest,
    action: string,
  ): void {
    const messages = [begin, ...changes, end].map(({ type, flags, body }, index) => {
      this.#sequence = (this.#sequence + 1) >>> 0;
      const acknowledged = index > 0 && index <= changes.length ? NLM_F.ACK : 0;
      return encodeMessage(type, flags | NLM_F.REQUEST | acknowledged, this.#sequence, body);
    });
    const last = this.#sequence - 1;
    const bytes = Buffer.concat(messages);
    const sent = check(
      syscall(SYS.sendto, this.#fd.number, bytes, bytes.length, 0, address(), SOCKADDR_LENGTH),
      action,
    );
    if (sent !== bytes.length) throw new HakoError("INTERNAL", `${action}: the kernel took ${sent} bytes`);
    for (let sequence = last - changes.length + 1; sequence <= last; sequence++)
      this.#collect(sequence, action);
  }

  /** Asks for one object. Throws as {@link change}. */
  get(type: number, body: Uint8Array, action: string): Buffer {
    const sequence = this.#send(type, NLM_F.ACK, body, action);
    const [message] = this.#collect(sequence, action).messages;
    if (message === undefined) throw new HakoError("NOT_FOUND", `${action}: the kernel has no answer`);
    return message.body;
  }

  /** Asks for all objects that `body` allows; a list that is consistent in itself. Throws as {@link change}. */
  dump(type: number, body: Uint8Array, action: string): Buffer[] {
    for (let attempt = 0; attempt < DUMP_TRIES; attempt++) {
      const sequence = this.#send(type, NLM_F.DUMP, body, action);
      const { messages, interrupted } = this.#collect(sequence, action);
      if (!interrupted) return messages.map((message) => message.body);
    }
    throw new HakoError("ABORTED", `${action}: it keeps changing meanwhile`);
  }

  close(): void {
    this.#fd.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #send(type: number, flags: number, body: Uint8Array, action: string): number {
    this.#sequence = (this.#sequence + 1) >>> 0;
    const bytes = encodeMessage(type, flags | NLM_F.REQUEST, this.#sequence, body);
    const sent = check(
      syscall(SYS.sendto, this.#fd.number, bytes, bytes.length, 0, address(), SOCKADDR_LENGTH),
      action,
    );
    if (sent !== bytes.length) throw new HakoError("INTERNAL", `${action}: the kernel took ${sent} bytes`);
    return this.#sequence;
  }

  /** Answers up to the final one. What belongs to an earlier request, which failed half-way, is dropped. */
  #collect(sequence: number, action: string): { messages: NetlinkMessage[]; interrupted: boolean } {
    const messages: NetlinkMessage[] = [];
    let interrupted = false;
    for (;;) {
      for (const message of this.#receive(action)) {
        if (message.sequence !== sequence) continue;
        interrupted ||= (message.flags & NLM_F.DUMP_INTR) !== 0;
        if (message.type === NLMSG_ERROR || message.type === NLMSG_DONE) {
          checkOutcome(message, action);
          return { messages, interrupted };
        }
        if (messages.length === MAX_DUMP_MESSAGES) {
          throw new HakoError("RESOURCE_EXHAUSTED", `${action}: more than ${MAX_DUMP_MESSAGES} entries`);
        }
        messages.push(message);
      }
    }
  }

  #receive(action: string): NetlinkMessage[] {
    const sender = address();
    const length = syscall(
      SYS.recvfrom,
      this.#fd.number,
      this.#buffer,
      this.#buffer.length,
      MSG_TRUNC | MSG_DONTWAIT,
      sender,
      Uint32Array.of(SOCKADDR_LENGTH),
    );
    if (length === -E.EAGAIN) throw new HakoError("DATA_LOSS", `${action}: the kernel gave no answer`);
    check(length, action);
    if (length > this.#buffer.length)
      throw new HakoError("DATA_LOSS", `${action}: an answer of ${length} bytes`);
    // Any process may send to a netlink socket; the kernel's port is 0.
    if (sender.readUInt32LE(4) !== 0) return [];
    return decodeMessages(Buffer.from(this.#buffer.subarray(0, length)));
  }
}

function address(): Buffer {
  const bytes = Buffer.alloc(SOCKADDR_LENGTH);
  bytes.writeUInt16LE(AF_NETLINK, 0);
  return bytes;
}

function openSocket(protocol: number): Fd {
  const fd = syscall(SYS.socket, AF_NETLINK, SOCK_RAW | O.CLOEXEC, protocol);
  return new Fd(check(fd, "Cannot open a netlink socket"));
}

function setOption(fd: Fd, option: number): void {
  const result = syscall(SYS.setsockopt, fd.number, SOL_NETLINK, option, Int32Array.of(1), 4);
  check(result, `Cannot set netlink option ${option}`);
}
