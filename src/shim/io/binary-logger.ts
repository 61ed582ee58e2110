import { withDeadline } from "#base/deadline.ts";
import { HakoError } from "#base/error.ts";
import { childEnvironment } from "#shim/environment.ts";
import { check } from "#sys/errno.ts";
import { Fd, readFd, setNonBlocking } from "#sys/fd.ts";
import { waitReadable } from "#sys/poller.ts";
import { SYS, syscall } from "#sys/syscall.ts";
import { FdOutput, type Output } from "./output.ts";

const O_CLOEXEC = 0o2000000;
const READY_TIMEOUT_MS = 10_000;

export interface LoggedContainer {
  readonly id: string;
  readonly namespace: string;
}

/**
 * Starts a program that takes the output of a container (containerd's `binary://` addresses): it reads standard output on
 * descriptor 3 and standard error on 4, and closes 5 when it is ready. It lives as long as it reads. Throws UNAVAILABLE,
 * DEADLINE_EXCEEDED when it does not get ready.
 */
export async function startBinaryLogger(
  address: URL,
  { id, namespace }: LoggedContainer,
): Promise<{ stdout: Output; stderr: Output }> {
  using stack = new DisposableStack();
  const pipe = () => pipePair().map((end) => stack.use(end)) as [Fd, Fd];
  const [outRead, outWrite] = pipe();
  const [errRead, errWrite] = pipe();
  const [readyRead, readyWrite] = pipe();
  const path = decodeURIComponent(address.pathname);
  const args = [...address.searchParams].flat();
  try {
    const child = Bun.spawn([path, ...args], {
      env: { ...childEnvironment(), CONTAINER_ID: id, CONTAINER_NAMESPACE: namespace },
      stdio: ["ignore", "ignore", "ignore", outRead.number, errRead.number, readyWrite.number],
    });
    child.unref();
  } catch (cause) {
    throw new HakoError("UNAVAILABLE", `Cannot start the logger "${path}"`, { cause });
  }
  readyWrite.close();
  setNonBlocking(readyRead.number);
  const byte = new Uint8Array(1);
  await withDeadline(READY_TIMEOUT_MS, `start the logger "${path}"`, async (signal) => {
    await waitReadable(readyRead.number, signal);
    readFd(readyRead.number, byte);
  });
  const output = (end: Fd) => {
    setNonBlocking(end.number);
    return new FdOutput(new Fd(end.release()));
  };
  return { stdout: output(outWrite), stderr: output(errWrite) };
}

function pipePair(): [Fd, Fd] {
  const fds = new Int32Array(2);
  check(syscall(SYS.pipe2, fds, O_CLOEXEC), "Cannot make a pipe");
  return [new Fd(fds[0] ?? -1), new Fd(fds[1] ?? -1)];
}
