import { check } from "#sys/errno.ts";
import { Fd, O, readFd } from "#sys/fd.ts";
import { waitReadable } from "#sys/poller.ts";
import { cstr, SYS, syscall } from "#sys/syscall.ts";
import { logger } from "#telemetry/log.ts";

// linux/inotify.h
const IN_MODIFY = 0x2;
const IN_IGNORED = 0x8000;
const EVENT_SIZE = 16;

const log = logger("cgroup");

/** One listener's failure must not end the watch for the others. */
function notify(listener: () => void): void {
  try {
    listener();
  } catch (error) {
    log.error("cannot look at a control file", { error });
  }
}

/**
 * Tells when control files change: the kernel notifies inotify(7) of cgroup.events and memory.events. One
 * inotify instance serves all files, because their number a user is small.
 */
export class ControlFileWatcher implements Disposable {
  readonly #fd: Fd;
  readonly #stop = new AbortController();
  readonly #listeners = new Map<number, Set<() => void>>();
  #running: Promise<void> | undefined;

  constructor() {
    this.#fd = new Fd(
      check(syscall(SYS.inotify_init1, O.CLOEXEC | O.NONBLOCK), "Cannot make an inotify instance"),
    );
  }

  /** Calls `changed` after each change, at least once for several. Dispose the result to end. */
  watch(path: string, changed: () => void): Disposable {
    const added = syscall(SYS.inotify_add_watch, this.#fd.number, cstr(path), IN_MODIFY);
    const id = check(added, `Cannot watch "${path}"`);
    const listeners = this.#listeners.get(id) ?? new Set();
    this.#listeners.set(id, listeners.add(changed));
    this.#running ??= this.#run();
    return { [Symbol.dispose]: () => this.#unwatch(id, changed) };
  }

  #unwatch(id: number, changed: () => void): void {
    const listeners = this.#listeners.get(id);
    listeners?.delete(changed);
    if (listeners?.size !== 0 || !this.#listeners.delete(id)) return;
    if (this.#fd.number >= 0) syscall(SYS.inotify_rm_watch, this.#fd.number, id);
  }

  async #run(): Promise<void> {
    const buffer = Buffer.alloc(4096);
    while (!this.#stop.signal.aborted) {
      try {
        await waitReadable(this.#fd.number, this.#stop.signal);
      } catch (error) {
        if (this.#stop.signal.aborted) return;
        throw error;
      }
      const length = readFd(this.#fd.number, buffer);
      if (length > 0) this.#dispatch(buffer.subarray(0, length));
    }
  }

  /** struct inotify_event: i32 watch, u32 mask, u32 cookie, u32 length of the name that follows. */
  #dispatch(events: Buffer): void {
    const changed = new Set<number>();
    for (
      let offset = 0;
      offset + EVENT_SIZE <= events.length;
      offset += EVENT_SIZE + events.readUInt32LE(offset + 12)
    ) {
      const id = events.readInt32LE(offset);
      changed.add(id);
      if (events.readUInt32LE(offset + 4) & IN_IGNORED) queueMicrotask(() => this.#listeners.delete(id));
    }
    for (const id of changed) for (const listener of [...(this.#listeners.get(id) ?? [])]) notify(listener);
  }

  [Symbol.dispose](): void {
    this.#stop.abort();
    this.#listeners.clear();
    this.#fd.close();
  }
}
