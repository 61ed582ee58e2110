import { HakoError } from "#base/error.ts";
import { makeConsolePipe } from "#linux/console-pipe.ts";
import { check, E } from "#sys/errno.ts";
import { AT_FDCWD, type Fd, O, openFd } from "#sys/fd.ts";
import { unixConnect, unixListen } from "#sys/socket.ts";
import { cstr, SYS, syscall } from "#sys/syscall.ts";

const CONTROL_SOCKET = "vmm.sock";
const CONSOLE_PIPE = "console.pipe";

/** By what hako and one hako-vmm are joined. `control` and `consoleReader` go to whoever uses them. */
export interface Channels extends Disposable {
  readonly controlListener: Fd;
  readonly control: Fd;
  readonly consoleReader: Fd;
  readonly consoleWriter: Fd;
}

/**
 * Makes the files of a machine in its run directory. The control connection is made at once: it waits in the listener
 * until hako-vmm is up. Throws with nothing left behind.
 */
export async function openChannels(runDir: string, signal?: AbortSignal): Promise<Channels> {
  using stack = new DisposableStack();
  try {
    // Through the directory's descriptor a socket's path is short, whatever the directory is called.
    using directory = openFd(runDir, O.PATH | O.DIRECTORY);
    const path = `/proc/self/fd/${directory.number}`;
    stack.defer(() => removeChannelFiles(runDir));
    const controlListener = stack.use(unixListen(`${path}/${CONTROL_SOCKET}`, "seqpacket"));
    const control = stack.use(await unixConnect(`${path}/${CONTROL_SOCKET}`, signal, "seqpacket"));
    const console = stack.use(makeConsolePipe(`${path}/${CONSOLE_PIPE}`));
    const owned = stack.move();
    return {
      controlListener,
      control,
      consoleReader: console.reader,
      consoleWriter: console.writer,
      [Symbol.dispose]: () => owned.dispose(),
    };
  } catch (cause) {
    throw new HakoError(HakoError.from(cause).code, `Cannot prepare "${runDir}" for hako-vmm`, { cause });
  }
}

/** Removes the files of a machine that has ended; what is not there is passed over. */
export function removeChannelFiles(runDir: string): void {
  for (const name of [CONTROL_SOCKET, CONSOLE_PIPE]) {
    const path = `${runDir}/${name}`;
    const result = syscall(SYS.unlinkat, AT_FDCWD, cstr(path), 0);
    if (result !== -E.ENOENT) check(result, `Cannot remove "${path}"`);
  }
}
