import { HakoError } from "#base/error.ts";
import { check, E, SystemError } from "./errno.ts";
import { native } from "./native.ts";
import { SYS, syscall } from "./syscall.ts";

// linux/eventpoll.h
const EPOLL_CTL_ADD = 1;
const EPOLL_CTL_DEL = 2;
const EPOLL_CTL_MOD = 3;
const EPOLLIN = 0x001;
const EPOLLOUT = 0x004;
const EPOLLERR = 0x008;
const EPOLLHUP = 0x010;
const EPOLLRDHUP = 0x2000;
const EPOLLONESHOT = 0x4000_0000;
/** struct epoll_event is packed on x86-64: u32 events, u64 data. */
const EVENT_SIZE = 12;
const MAX_EVENTS = 64;

type Direction = "read" | "write";

interface Waiter {
  resolve(): void;
  reject(error: HakoError): void;
}

interface Watch {
  read: Waiter | undefined;
  write: Waiter | undefined;
}

/**
 * Readiness of any pollable file descriptor (pipe, pty, seqpacket socket, pidfd, netlink, virtio port) as a
 * promise. libhako's thread sleeps in poll(2) on one epoll instance and wakes the event loop by an eventfd.
 */
class Poller {
  readonly #epollFd: number;
  readonly #ackFd: number;
  readonly #watches = new Map<number, Watch>();
  readonly #events = new DataView(new ArrayBuffer(EVENT_SIZE * MAX_EVENTS));
  readonly #one = BigUint64Array.of(1n);

  constructor() {
    const fds = new Int32Array(3);
    const { symbols } = native();
    check(
      symbols.hako_poller_start(fds.subarray(0, 1), fds.subarray(1, 2), fds.subarray(2, 3)),
      "Cannot start the poller",
    );
    this.#epollFd = fds[0] ?? -1;
    this.#ackFd = fds[2] ?? -1;
    void this.#run(fds[1] ?? -1);
  }

  async #run(notifyFd: number): Promise<void> {
    for await (const _ of Bun.file(notifyFd).stream()) {
      this.#collect();
      syscall(SYS.write, this.#ackFd, this.#one, 8);
    }
  }

  #collect(): void {
    const count = syscall(SYS.epoll_wait, this.#epollFd, this.#events, MAX_EVENTS, 0);
    for (let index = 0; index < count; index++) {
      const events = this.#events.getUint32(index * EVENT_SIZE, true);
      const fd = this.#events.getInt32(index * EVENT_SIZE + 4, true);
      this.#wake(fd, events);
    }
  }

  #wake(fd: number, events: number): void {
    const watch = this.#watches.get(fd);
    if (!watch) return;
    const gone = (events & (EPOLLERR | EPOLLHUP)) !== 0;
    const { read, write } = watch;
    if (gone || events & (EPOLLIN | EPOLLRDHUP)) watch.read = undefined;
    if (gone || events & EPOLLOUT) watch.write = undefined;
    this.#rearm(fd, watch);
    if (!watch.read) read?.resolve();
    if (!watch.write) write?.resolve();
  }

  /** Asks the kernel for what is still waited for; one-shot, so that each wait is one wake-up. */
  #rearm(fd: number, watch: Watch): number {
    if (!watch.read && !watch.write) {
      this.#watches.delete(fd);
      return syscall(SYS.epoll_ctl, this.#epollFd, EPOLL_CTL_DEL, fd, null);
    }
    const events = (watch.read ? EPOLLIN | EPOLLRDHUP : 0) | (watch.write ? EPOLLOUT : 0) | EPOLLONESHOT;
    const event = new DataView(new ArrayBuffer(EVENT_SIZE));
    event.setUint32(0, events, true);
    event.setInt32(4, fd, true);
    const result = syscall(SYS.epoll_ctl, this.#epollFd, EPOLL_CTL_MOD, fd, event);
    return result === -E.ENOENT ? syscall(SYS.epoll_ctl, this.#epollFd, EPOLL_CTL_ADD, fd, event) : result;
  }

  wait(fd: number, direction: Direction, signal?: AbortSignal): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const action = `Cannot wait for file descriptor ${fd}`;
    if (signal?.aborted) {
      reject(new HakoError("CANCELLED", `${action}: cancelled`, { cause: signal.reason }));
      return promise;
    }
    const watch = this.#watches.get(fd) ?? { read: undefined, write: undefined };
    if (watch[direction]) {
      reject(new HakoError("FAILED_PRECONDITION", `${action}: somebody waits for it already`));
      return promise;
    }
    const cancel = () => {
      if (watch[direction] !== waiter) return;
      watch[direction] = undefined;
      this.#rearm(fd, watch);
      reject(new HakoError("CANCELLED", `${action}: cancelled`, { cause: signal?.reason }));
    };
    const waiter: Waiter = {
      resolve: () => {
        signal?.removeEventListener("abort", cancel);
        resolve();
      },
      reject,
    };
    watch[direction] = waiter;
    this.#watches.set(fd, watch);
    const result = this.#rearm(fd, watch);
    if (result < 0) {
      watch[direction] = undefined;
      if (!watch.read && !watch.write) this.#watches.delete(fd);
      // Regular files and some devices cannot be polled because they never block.
      if (result === -E.EPERM) resolve();
      else reject(new SystemError(action, -result));
      return promise;
    }
    signal?.addEventListener("abort", cancel, { once: true });
    return promise;
  }
}

let poller: Poller | undefined;

/**
 * Resolves when `fd` can be read without blocking: data, end of file, hang-up or error. One waiter a direction.
 * Throws CANCELLED on the signal. Abort the wait before closing the descriptor.
 */
export function waitReadable(fd: number, signal?: AbortSignal): Promise<void> {
  poller ??= new Poller();
  return poller.wait(fd, "read", signal);
}

/** Resolves when `fd` can be written without blocking, or is broken. */
export function waitWritable(fd: number, signal?: AbortSignal): Promise<void> {
  poller ??= new Poller();
  return poller.wait(fd, "write", signal);
}
