import { findProgram } from "#agent/program.ts";
import { check, E } from "#sys/errno.ts";
import { type Fd, O, openFd, readFd, writeFd } from "#sys/fd.ts";
import { waitReadable, waitWritable } from "#sys/poller.ts";
import { logger } from "#telemetry/log.ts";
import type { SideChannel } from "./side-channel.ts";

/** Kata's order. The guest image that hako makes has none of them; images for debugging do. */
const shells = ["/usr/bin/devkit-sh", "/bin/bash", "/bin/sh"] as const;
const environment = { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", TERM: "xterm", HOME: "/" };
const SESSIONS_MAX = 8;
const READ_SIZE = 16 * 1024;
const RESPAWN_MS = 1000;
/** How long a terminal takes to hand on what was written to it, and how long a client may take for that. */
const LAST_WORDS_MS = 100;
const PATIENCE_MS = 2000;
const log = logger("console");

async function writeAllTo(fd: Fd, bytes: Uint8Array, signal?: AbortSignal): Promise<void> {
  for (let offset = 0; offset < bytes.length; ) {
    const taken = writeFd(fd.number, bytes.subarray(offset));
    if (taken === -E.EAGAIN) await waitWritable(fd.number, signal);
    else offset += check(taken, "Cannot write to the debug console");
  }
}

/** Reads what comes until the end of the connection or the signal. */
async function readFrom(
  connection: Fd,
  take: (bytes: Uint8Array) => void,
  signal: AbortSignal,
): Promise<void> {
  const buffer = new Uint8Array(READ_SIZE);
  for (;;) {
    const length = readFd(connection.number, buffer);
    if (length > 0) take(buffer.slice(0, length));
    else if (length === -E.EAGAIN) await waitReadable(connection.number, signal);
    else return;
  }
}

/** One shell on a terminal of its own, for one connection; ends with whichever ends first. */
async function serveShell(connection: Fd, shell: string): Promise<void> {
  // Nobody may wait for the connection any more when it is closed.
  const stop = new AbortController();
  let output = Promise.resolve();
  const terminal = new Bun.Terminal({
    cols: 80,
    rows: 24,
    data: (_, bytes) => {
      const copy = Uint8Array.from(bytes);
      output = output
        .then(() => writeAllTo(connection, copy, stop.signal))
        .catch(() => void child.kill("SIGHUP"));
    },
  });
  const child = Bun.spawn([shell], { terminal, env: environment, cwd: "/" });
  const input = readFrom(connection, (bytes) => terminal.write(bytes), stop.signal).catch(() => {});
  await Promise.race([child.exited, input]);
  child.kill("SIGHUP");
  await child.exited;
  // What it said last is still on its way through the terminal.
  await Bun.sleep(LAST_WORDS_MS);
  const patience = setTimeout(() => stop.abort(), PATIENCE_MS);
  await output;
  terminal.close();
  clearTimeout(patience);
  stop.abort();
  await input;
}

/** Offers a shell to whoever connects. */
export function serveDebugConsole(channel: SideChannel): Disposable {
  let sessions = 0;
  const serve = async (connection: Fd) => {
    using owned = connection;
    const shell = findProgram(shells);
    if (shell === undefined || sessions >= SESSIONS_MAX) {
      const reason = shell === undefined ? "this guest has no shell" : "too many sessions";
      await writeAllTo(owned, Buffer.from(`hako: no debug console: ${reason}\n`));
      return;
    }
    sessions++;
    try {
      await serveShell(owned, shell);
    } finally {
      sessions--;
    }
  };
  channel.accept((connection) => {
    void serve(connection).catch((error) => log.warn("a debug console failed", { error }));
  });
  return channel;
}

/** Keeps a shell on a terminal device, the guest's console, until disposed. */
export function keepConsoleShell(device = "/dev/console"): Disposable {
  const stop = new AbortController();
  const keep = async () => {
    const shell = findProgram(shells);
    if (shell === undefined) {
      log.warn("no debug console: this guest has no shell");
      return;
    }
    while (!stop.signal.aborted) {
      using tty = openFd(device, O.RDWR | O.NOCTTY);
      const stdio = tty.number;
      const child = Bun.spawn([shell], {
        stdio: [stdio, stdio, stdio],
        env: environment,
        cwd: "/",
        detached: true,
      });
      const end = () => child.kill("SIGKILL");
      stop.signal.addEventListener("abort", end, { once: true });
      await child.exited;
      stop.signal.removeEventListener("abort", end);
      await Bun.sleep(RESPAWN_MS);
    }
  };
  void keep().catch((error) => log.warn("the debug console has ended", { error }));
  return { [Symbol.dispose]: () => stop.abort() };
}
