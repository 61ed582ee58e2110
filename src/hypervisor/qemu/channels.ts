import { HakoError } from "#base/error.ts";
import { makeConsolePipe } from "#linux/console-pipe.ts";
import { check, E } from "#sys/errno.ts";
import { AT_FDCWD, type Fd, O, openFd } from "#sys/fd.ts";
import { unixConnect, unixListen } from "#sys/socket.ts";
import { cstr, SYS, syscall } from "#sys/syscall.ts";

export const CONTROL_SOCKET = "qmp.sock";
/** A named pipe: QEMU goes on when its reader dies, and a new reader can open it. */
export const CONSOLE_PIPE = "console.pipe";

/** By what hako and one QEMU are joined; QEMU gets the listener and the console's write end. */
export interface Channels extends Disposable {
  readonly controlListener: Fd;
  readonly control: Fd;
  readonly consoleReader: Fd;
  readonly consoleWriter: Fd;
  /** Closes our copies of what QEMU has inherited, so that its end is seen as the end of each channel. */
  closeMonitorEnds(): void;
}

/**
 * Makes the files of a QEMU in its run directory. The control connection is made at once: it waits in the listener
 * until QEMU is up. Throws with nothing left behind.
 */
export async function openChannels(runDir: string, signal?: AbortSignal): Promise<Channels> {
  using stack = new DisposableStack();
  try {
    // Through the directory's descriptor a socket's path is short, whatever the directory is called.
    using directory = openFd(runDir, O.PATH | O.DIRECTORY);
    const path = `/proc/self/fd/${directory.number}`;
    stack.defer(() => removeChannelFiles(runDir));
    const controlListener = stack.use(unixListen(`${path}/${CONTROL_SOCKET}`));
    const control = stack.use(await unixConnect(`${path}/${CONTROL_SOCKET}`, signal));
    const console = stack.use(makeConsolePipe(`${path}/${CONSOLE_PIPE}`));
    const owned = stack.move();
    return {
      controlListener,
      control,
      consoleReader: console.reader,
      consoleWriter: console.writer,
      closeMonitorEnds: () => {
        controlListener.close();
        console.writer.close();
      },
      [Symbol.dispose]: () => owned.dispose(),
    };
  } catch (cause) {
    throw new HakoError(HakoError.from(cause).code, `Cannot prepare "${runDir}" for QEMU`, { cause });
  }
}

/** Removes the files of a QEMU that has ended; what is not there is passed over. */
export function removeChannelFiles(runDir: string): void {
  for (const name of [CONTROL_SOCKET, CONSOLE_PIPE]) {
    const path = `${runDir}/${name}`;
    const result = syscall(SYS.unlinkat, AT_FDCWD, cstr(path), 0);
    if (result !== -E.ENOENT) check(result, `Cannot remove "${path}"`);
  }
}
