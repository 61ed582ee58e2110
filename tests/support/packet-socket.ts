import { check, E } from "#sys/errno.ts";
import { Fd, O, readFd, writeFd } from "#sys/fd.ts";
import { waitReadable } from "#sys/poller.ts";
import { SYS, syscall } from "#sys/syscall.ts";

// linux/if_packet.h, linux/if_ether.h, linux/if.h, linux/sockios.h
const AF_PACKET = 17;
const SOCK_RAW = 3;
const ETH_P_ALL_BIG_ENDIAN = 0x0300;
const SIOCGIFFLAGS = 0x8913;
const SIOCSIFFLAGS = 0x8914;
const SIOCGIFINDEX = 0x8933;
const IFF_UP = 1;
const IFREQ_SIZE = 40;
/** IEEE 802 local experimental ethertype, which the contract guest uses. */
const TEST_ETHERTYPE = 0x88b5;
const HEADER_SIZE = 14;

/** Frames of the test's ethertype on an interface of the host, which is set up. */
export class PacketSocket implements Disposable {
  readonly #fd: Fd;

  constructor(interfaceName: string) {
    const fd = check(
      syscall(SYS.socket, AF_PACKET, SOCK_RAW | O.CLOEXEC | O.NONBLOCK, ETH_P_ALL_BIG_ENDIAN),
      "Cannot make a packet socket",
    );
    this.#fd = new Fd(fd);
    setUp(fd, interfaceName);
    const address = Buffer.alloc(20);
    address.writeUInt16LE(AF_PACKET, 0);
    address.writeUInt16LE(ETH_P_ALL_BIG_ENDIAN, 2);
    address.writeInt32LE(interfaceIndex(fd, interfaceName), 4);
    check(syscall(SYS.bind, fd, address, address.length), `Cannot bind to "${interfaceName}"`);
  }

  /** The text of the next frame of the test's ethertype. */
  async receive(): Promise<string> {
    const frame = Buffer.alloc(2048);
    for (;;) {
      const length = readFd(this.#fd.number, frame);
      if (length === -E.EAGAIN) await waitReadable(this.#fd.number);
      else if (check(length, "Cannot receive a frame") > HEADER_SIZE && isTest(frame)) {
        return frame.toString("latin1", HEADER_SIZE, length).replace(/\0.*/s, "");
      }
    }
  }

  /** Broadcasts a frame with a text. */
  send(text: string): void {
    const frame = Buffer.alloc(HEADER_SIZE + Math.max(46, text.length + 1));
    frame.fill(0xff, 0, 6);
    frame.set([0x02, 0, 0, 0, 0, 1], 6);
    frame.writeUInt16BE(TEST_ETHERTYPE, 12);
    frame.write(text, HEADER_SIZE, "latin1");
    check(writeFd(this.#fd.number, frame), "Cannot send a frame");
  }

  [Symbol.dispose](): void {
    this.#fd.close();
  }
}

function isTest(frame: Buffer): boolean {
  return frame.readUInt16BE(12) === TEST_ETHERTYPE;
}

/** struct ifreq: 16 bytes of name, then the flags as a short. */
function setUp(socket: number, interfaceName: string): void {
  const request = Buffer.alloc(IFREQ_SIZE);
  request.write(interfaceName, "latin1");
  check(syscall(SYS.ioctl, socket, SIOCGIFFLAGS, request), `Cannot read the flags of "${interfaceName}"`);
  request.writeInt16LE(request.readInt16LE(16) | IFF_UP, 16);
  check(syscall(SYS.ioctl, socket, SIOCSIFFLAGS, request), `Cannot set "${interfaceName}" up`);
}

/** In the network namespace of the socket, which /sys need not show. */
function interfaceIndex(socket: number, interfaceName: string): number {
  const request = Buffer.alloc(IFREQ_SIZE);
  request.write(interfaceName, "latin1");
  check(syscall(SYS.ioctl, socket, SIOCGIFINDEX, request), `Cannot find "${interfaceName}"`);
  return request.readInt32LE(16);
}
