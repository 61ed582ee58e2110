import { HakoError } from "#base/error.ts";
import { check, E } from "./errno.ts";
import { Fd, O } from "./fd.ts";
import { addressOf } from "./native.ts";
import { waitWritable } from "./poller.ts";
import { SYS, syscall } from "./syscall.ts";

// linux/socket.h, linux/un.h, linux/vm_sockets.h
export const AF_UNIX = 1;
const AF_INET = 2;
export const AF_VSOCK = 40;
const SOCK_STREAM = 1;
const SOCK_SEQPACKET = 5;
const SOL_SOCKET = 1;
const SO_ERROR = 4;
const SCM_RIGHTS = 1;
const MSG_CMSG_CLOEXEC = 0x4000_0000;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const MSG_CTRUNC = 0x08;
const MSG_TRUNC = 0x20;
export const VMADDR_CID_ANY = 0xffff_ffff;
/** sun_path holds 108 bytes, the last one a NUL. */
const UNIX_PATH_MAX = 107;
/** SCM_MAX_FD of the kernel. */
const MAX_FDS = 253;

export type SocketType = "stream" | "seqpacket";

const types: Record<SocketType, number> = { stream: SOCK_STREAM, seqpacket: SOCK_SEQPACKET };

function open(family: number, type: SocketType): Fd {
  const fd = syscall(SYS.socket, family, types[type] | O.CLOEXEC | O.NONBLOCK, 0);
  return new Fd(check(fd, "Cannot make a socket"));
}

/** Two connected unix sockets, close-on-exec, non-blocking. */
export function socketpair(type: SocketType): [Fd, Fd] {
  const fds = new Int32Array(2);
  check(
    syscall(SYS.socketpair, AF_UNIX, types[type] | O.CLOEXEC | O.NONBLOCK, 0, fds),
    "Cannot make a pair of sockets",
  );
  return [new Fd(fds[0] ?? -1), new Fd(fds[1] ?? -1)];
}

/** struct sockaddr_un; a leading "@" means the abstract namespace. */
function unixAddress(path: string): Uint8Array {
  const name = Buffer.from(path);
  if (name.length === 0 || name.length > UNIX_PATH_MAX || name.includes(0)) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Cannot use "${path}" as a socket path: it must have 1 to ${UNIX_PATH_MAX} bytes`,
    );
  }
  const abstract = path.startsWith("@");
  const address = Buffer.alloc(2 + name.length + (abstract ? 0 : 1));
  address.writeUInt16LE(AF_UNIX, 0);
  name.copy(address, 2);
  if (abstract) address[2] = 0;
  return address;
}

/** struct sockaddr_vm. */
function vsockAddress(cid: number, port: number): Uint8Array {
  const address = Buffer.alloc(16);
  address.writeUInt16LE(AF_VSOCK, 0);
  address.writeUInt32LE(port, 4);
  address.writeUInt32LE(cid, 8);
  return address;
}

function listen(fd: Fd, address: Uint8Array, what: string): Fd {
  using owned = fd;
  check(syscall(SYS.bind, owned.number, address, address.length), `Cannot bind ${what}`);
  check(syscall(SYS.listen, owned.number, 128), `Cannot listen on ${what}`);
  return new Fd(owned.release());
}

/** Connects a non-blocking socket; the wait ends with the signal. */
async function connect(fd: Fd, address: Uint8Array, what: string, signal?: AbortSignal): Promise<Fd> {
  using owned = fd;
  const action = `Cannot connect to ${what}`;
  const result = syscall(SYS.connect, owned.number, address, address.length);
  if (result === -E.EINPROGRESS) {
    await waitWritable(owned.number, signal);
    check(-socketError(owned.number), action);
  } else {
    check(result, action);
  }
  return new Fd(owned.release());
}

function socketError(fd: number): number {
  const value = new Int32Array(1);
  check(
    syscall(SYS.getsockopt, fd, SOL_SOCKET, SO_ERROR, value, Int32Array.of(4)),
    "Cannot read a socket's error",
  );
  return value[0] ?? 0;
}

/** A listening unix socket, non-blocking. Removes nothing: the path must be free. "@name" is abstract. */
export function unixListen(path: string, type: SocketType = "stream"): Fd {
  return listen(open(AF_UNIX, type), unixAddress(path), `"${path}"`);
}

/** A connected unix socket, non-blocking. UNAVAILABLE when nobody listens, NOT_FOUND without the file. */
export async function unixConnect(
  path: string,
  signal?: AbortSignal,
  type: SocketType = "stream",
): Promise<Fd> {
  return connect(open(AF_UNIX, type), unixAddress(path), `"${path}"`, signal);
}

/** A listening vsock stream socket on any of our context ids. */
export function vsockListen(port: number): Fd {
  return listen(open(AF_VSOCK, "stream"), vsockAddress(VMADDR_CID_ANY, port), `vsock port ${port}`);
}

/** struct sockaddr_in of 127.0.0.1. */
function loopbackAddress(port: number): Uint8Array {
  const address = Buffer.alloc(16);
  address.writeUInt16LE(AF_INET, 0);
  address.writeUInt16BE(port, 2);
  address.set([127, 0, 0, 1], 4);
  return address;
}

/** A listening TCP socket on 127.0.0.1: every user of the machine can connect. */
export function loopbackListen(port: number): Fd {
  return listen(open(AF_INET, "stream"), loopbackAddress(port), `TCP port ${port}`);
}

/** A connected TCP socket to 127.0.0.1. */
export async function loopbackConnect(port: number, signal?: AbortSignal): Promise<Fd> {
  return connect(open(AF_INET, "stream"), loopbackAddress(port), `TCP port ${port}`, signal);
}

/** A connected vsock stream socket to `port` of context id `cid`. */
export async function vsockConnect(cid: number, port: number, signal?: AbortSignal): Promise<Fd> {
  return connect(open(AF_VSOCK, "stream"), vsockAddress(cid, port), `vsock ${cid}:${port}`, signal);
}

/** struct msghdr of x86-64 and arm64 (56 bytes) with one iovec; the buffers must outlive its use. */
function messageHeader(
  bytes: Uint8Array,
  control: Uint8Array,
): { header: Uint8Array; iovec: BigUint64Array } {
  const iovec = BigUint64Array.of(bytes.length ? BigInt(addressOf(bytes)) : 0n, BigInt(bytes.length));
  const header = new BigUint64Array(7);
  header[2] = BigInt(addressOf(iovec));
  header[3] = 1n;
  if (control.length) {
    header[4] = BigInt(addressOf(control));
    header[5] = BigInt(control.length);
  }
  return { header: new Uint8Array(header.buffer), iovec };
}

/** struct cmsghdr: u64 length, i32 level, i32 type; then the descriptors, padded to 8 bytes. */
function encodeRights(fds: readonly number[]): Uint8Array {
  if (fds.length === 0) return new Uint8Array(0);
  if (fds.length > MAX_FDS) {
    throw new HakoError("INVALID_ARGUMENT", `Cannot send ${fds.length} file descriptors: at most ${MAX_FDS}`);
  }
  const control = Buffer.alloc(16 + Math.ceil((fds.length * 4) / 8) * 8);
  control.writeBigUInt64LE(BigInt(16 + fds.length * 4), 0);
  control.writeInt32LE(SOL_SOCKET, 8);
  control.writeInt32LE(SCM_RIGHTS, 12);
  fds.forEach((fd, index) => {
    control.writeInt32LE(fd, 16 + index * 4);
  });
  return control;
}

/**
 * Sends bytes with file descriptors as one sendmsg(2), without blocking. The descriptors stay the caller's.
 * Throws UNAVAILABLE when the peer is gone or its buffer is full.
 */
export function sendFds(fd: number, bytes: Uint8Array, fds: readonly number[]): void {
  const control = encodeRights(fds);
  const message = messageHeader(bytes, control);
  const sent = check(
    syscall(SYS.sendmsg, fd, message.header, MSG_NOSIGNAL | MSG_DONTWAIT),
    `Cannot send ${bytes.length} bytes and ${fds.length} file descriptors`,
  );
  if (sent !== bytes.length || message.iovec.length !== 2) {
    throw new HakoError(
      "INTERNAL",
      `Cannot send a message whole: ${sent} of ${bytes.length} bytes were taken`,
    );
  }
}

export interface ReceivedMessage {
  /** Bytes now in the buffer. */
  readonly length: number;
  /** The caller's, close-on-exec. */
  readonly fds: Fd[];
}

/**
 * Receives one message into `buffer`, with at most `maxFds` file descriptors, without blocking.
 * "again" when nothing is there, "closed" at the end. A message or descriptors beyond the room given: DATA_LOSS,
 * all received descriptors closed.
 */
export function receiveFds(
  fd: number,
  buffer: Uint8Array,
  maxFds: number,
): ReceivedMessage | "again" | "closed" {
  const control = Buffer.alloc(16 + Math.ceil((Math.max(maxFds, 1) * 4) / 8) * 8);
  const message = messageHeader(buffer, control);
  const length = syscall(SYS.recvmsg, fd, message.header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  if (length === -E.EAGAIN) return "again";
  if (length === -E.ECONNRESET) return "closed";
  check(length, "Cannot receive a message");
  const header = Buffer.from(message.header.buffer);
  const controlLength = Number(header.readBigUInt64LE(40));
  const flags = header.readInt32LE(48);
  const fds = decodeRights(control.subarray(0, controlLength));
  if (flags & (MSG_CTRUNC | MSG_TRUNC) || fds.length > maxFds || message.iovec.length !== 2) {
    for (const received of fds) received.close();
    throw new HakoError("DATA_LOSS", "Cannot receive a message: it is larger than its receiver allows");
  }
  if (length === 0 && fds.length === 0) return "closed";
  return { length, fds };
}

function decodeRights(control: Buffer): Fd[] {
  const fds: Fd[] = [];
  for (let offset = 0; offset + 16 <= control.length; ) {
    const length = Number(control.readBigUInt64LE(offset));
    if (length < 16 || offset + length > control.length) break;
    if (control.readInt32LE(offset + 8) === SOL_SOCKET && control.readInt32LE(offset + 12) === SCM_RIGHTS) {
      for (let at = offset + 16; at + 4 <= offset + length; at += 4)
        fds.push(new Fd(control.readInt32LE(at)));
    }
    offset += Math.ceil(length / 8) * 8;
  }
  return fds;
}

/**
 * Takes a waiting connection of a listening socket, close-on-exec and non-blocking; undefined when none waits.
 * Wait with the poller's `waitReadable`.
 */
export function acceptConnection(listener: number): Fd | undefined {
  const fd = syscall(SYS.accept4, listener, null, null, O.CLOEXEC | O.NONBLOCK);
  if (fd === -E.EAGAIN || fd === -E.ECONNABORTED || fd === -E.EINTR) return undefined;
  return new Fd(check(fd, "Cannot accept a connection"));
}
