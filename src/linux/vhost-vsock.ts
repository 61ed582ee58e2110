import { HakoError } from "#base/error.ts";
import { E, SystemError } from "#sys/errno.ts";
import { type Fd, O, openFd } from "#sys/fd.ts";
import { SYS, syscall } from "#sys/syscall.ts";

// linux/vhost.h: _IOW(VHOST_VIRTIO, 0x60, __u64)
const VHOST_VSOCK_SET_GUEST_CID = 0x4008af60;
// linux/vm_sockets.h: 0 to 2 are taken, the last value means "any"
const FIRST_CID = 3;
const LAST_CID = 0xffff_fffe;
/** With fewer than a million guests on a host fifty random tries never all collide. */
const TRIES = 50;

/** A context id that is ours as long as the descriptor is open. */
export interface GuestCid extends Disposable {
  readonly cid: number;
  /** Open /dev/vhost-vsock, for the monitor. */
  readonly vhost: Fd;
}

/**
 * Opens vhost-vsock and claims a free context id for one guest. NOT_FOUND where the host has no vhost-vsock,
 * PERMISSION_DENIED where we may not use it, RESOURCE_EXHAUSTED when no id is free.
 */
export function claimGuestCid(device = "/dev/vhost-vsock"): GuestCid {
  using stack = new DisposableStack();
  const vhost = stack.use(openFd(device, O.RDWR));
  for (let attempt = 0; attempt < TRIES; attempt++) {
    const cid = randomCid();
    const result = syscall(
      SYS.ioctl,
      vhost.number,
      VHOST_VSOCK_SET_GUEST_CID,
      BigUint64Array.of(BigInt(cid)),
    );
    if (result === 0) {
      stack.move();
      return { cid, vhost, [Symbol.dispose]: () => vhost.close() };
    }
    if (result !== -E.EADDRINUSE) throw new SystemError("Cannot claim a vsock context id", -result);
  }
  throw new HakoError(
    "RESOURCE_EXHAUSTED",
    `Cannot claim a vsock context id: ${TRIES} random ones were all in use`,
  );
}

function randomCid(): number {
  const random = crypto.getRandomValues(new Uint32Array(1))[0] ?? 0;
  return FIRST_CID + (random % (LAST_CID - FIRST_CID + 1));
}
