import { check, E } from "#sys/errno.ts";
import { Fd, O } from "#sys/fd.ts";
import { waitReadable } from "#sys/poller.ts";
import { SYS, syscall } from "#sys/syscall.ts";

/** A kernel message about a device (Documentation/ABI/testing/sysfs-uevent; lib/kobject_uevent.c). */
export interface Uevent {
  readonly action: string;
  /** Below /sys, beginning with a slash. */
  readonly devpath: string;
  readonly subsystem: string;
  /** Below /dev; empty when the device has no node. */
  readonly devname: string;
}

// linux/netlink.h, linux/socket.h
const AF_NETLINK = 16;
const SOCK_DGRAM = 2;
const NETLINK_KOBJECT_UEVENT = 15;
const KERNEL_GROUP = 1;
const MSG_DONTWAIT = 0x40;
/** UEVENT_BUFFER_SIZE is 2048 bytes, plus the header line. */
const BUFFER_SIZE = 8192;
/** Messages taken in one turn of the event loop. */
const BATCH_MAX = 256;

/** Reads `ACTION@DEVPATH` and its NUL-separated KEY=VALUE lines; undefined for anything else (udev's own format). */
export function parseUevent(message: Uint8Array): Uevent | undefined {
  const [header, ...lines] = Buffer.from(message).toString("latin1").split("\0");
  const at = header?.indexOf("@") ?? -1;
  if (!header || at <= 0 || header[at + 1] !== "/") return undefined;
  const fields = new Map(
    lines.map((line) => [line.slice(0, line.indexOf("=")), line.slice(line.indexOf("=") + 1)]),
  );
  return {
    action: header.slice(0, at),
    devpath: header.slice(at + 1),
    subsystem: fields.get("SUBSYSTEM") ?? "",
    devname: fields.get("DEVNAME") ?? "",
  };
}

/** The kernel's device messages, from the moment of its making on. */
export class UeventSocket implements Disposable {
  readonly #fd: Fd;
  readonly #buffer = new Uint8Array(BUFFER_SIZE);
  /** struct sockaddr_nl: u16 family, u16 pad, u32 port id, u32 groups. */
  readonly #sender = new DataView(new ArrayBuffer(12));

  constructor() {
    const fd = syscall(SYS.socket, AF_NETLINK, SOCK_DGRAM | O.CLOEXEC | O.NONBLOCK, NETLINK_KOBJECT_UEVENT);
    this.#fd = new Fd(check(fd, "Cannot make a uevent socket"));
    const address = new DataView(new ArrayBuffer(12));
    address.setUint16(0, AF_NETLINK, true);
    address.setUint32(8, KERNEL_GROUP, true);
    const bound = syscall(SYS.bind, this.#fd.number, address, 12);
    if (bound < 0) this.#fd.close();
    check(bound, "Cannot listen for uevents");
  }

  /**
   * Resolves with what is there once something is. Messages that did not come from the kernel are dropped: a
   * container that shares the network namespace may send to the same group. `lost` says that the socket ran over,
   * so that the caller looks at /sys again.
   */
  async receive(signal?: AbortSignal): Promise<{ events: Uevent[]; lost: boolean }> {
    await waitReadable(this.#fd.number, signal);
    const events: Uevent[] = [];
    for (let count = 0; count < BATCH_MAX; count++) {
      const length = this.#receiveOne();
      if (length === -E.EAGAIN) return { events, lost: false };
      if (length === -E.ENOBUFS) return { events, lost: true };
      check(length, "Cannot receive a uevent");
      if (this.#sender.getUint32(4, true) !== 0) continue;
      const event = parseUevent(this.#buffer.subarray(0, length));
      if (event) events.push(event);
    }
    return { events, lost: false };
  }

  #receiveOne(): number {
    return syscall(
      SYS.recvfrom,
      this.#fd.number,
      this.#buffer,
      BUFFER_SIZE,
      MSG_DONTWAIT,
      this.#sender,
      Int32Array.of(12),
    );
  }

  [Symbol.dispose](): void {
    this.#fd.close();
  }
}
