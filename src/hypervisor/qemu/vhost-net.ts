import { E, isErrno } from "#sys/errno.ts";
import { type Fd, O, openFd } from "#sys/fd.ts";

/** Open /dev/vhost-net, one for each queue; none where the host has no vhost-net. */
export interface VhostNet extends Disposable {
  readonly fds: readonly number[];
}

const absent = [E.ENOENT, E.ENODEV, E.ENXIO, E.EACCES, E.EPERM];

/** With vhost-net the host kernel moves the packets instead of QEMU. */
export function openVhostNet(queues: number): VhostNet {
  using stack = new DisposableStack();
  const opened: Fd[] = [];
  try {
    for (let queue = 0; queue < queues; queue++) opened.push(stack.use(openFd("/dev/vhost-net", O.RDWR)));
  } catch (error) {
    if (!absent.some((errno) => isErrno(error, errno))) throw error;
    opened.length = 0;
  }
  const owned = stack.move();
  return { fds: opened.map((fd) => fd.number), [Symbol.dispose]: () => owned.dispose() };
}
