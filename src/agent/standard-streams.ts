import { check } from "#sys/errno.ts";
import { type Fd, pipe } from "#sys/fd.ts";
import { SYS, syscall } from "#sys/syscall.ts";

const F_SETPIPE_SZ = 1031;

/** The three pipes of a process without a terminal: the process's ends, and ours. */
export interface StandardPipes extends Disposable {
  readonly process: { readonly stdin: Fd; readonly stdout: Fd; readonly stderr: Fd };
  readonly agent: { readonly stdin: Fd; readonly stdout: Fd; readonly stderr: Fd };
}

/**
 * Makes the pipes. `size` is the number of bytes each holds, 0 for the kernel's default. Disposing closes what was
 * not taken out by `release`.
 */
export function makeStandardPipes(size: number): StandardPipes {
  using undo = new DisposableStack();
  const make = () => {
    const ends = pipe();
    undo.use(ends.read);
    undo.use(ends.write);
    if (size > 0)
      check(syscall(SYS.fcntl, ends.write.number, F_SETPIPE_SZ, size), "Cannot set the size of a pipe");
    return ends;
  };
  const [stdin, stdout, stderr] = [make(), make(), make()];
  const all = undo.move();
  return {
    process: { stdin: stdin.read, stdout: stdout.write, stderr: stderr.write },
    agent: { stdin: stdin.write, stdout: stdout.read, stderr: stderr.read },
    [Symbol.dispose]: () => all.dispose(),
  };
}
