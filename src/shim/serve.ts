import { Fd, O, openFd, writeFd } from "#sys/fd.ts";
import { logger, setLogLevel, setLogSink } from "#telemetry/log.ts";
import { serveListener } from "#ttrpc/listener.ts";
import { TtrpcServer } from "#ttrpc/server.ts";
import { readEnvironment } from "./environment.ts";
import { EventLoopLag } from "./event-loop-lag.ts";
import { EventPublisher } from "./event-publisher.ts";
import type { ShimFlags } from "./flags.ts";
import { Pod } from "./pod.ts";
import { SERVICES } from "./registry.ts";
import { ServiceHost } from "./service-host.ts";

const log = logger("shim");

/** Where `start` leaves the listening socket; the path stands in the environment beside it. */
export const LISTENER_FD = 3;
export const SOCKET_VARIABLE = "HAKO_SHIM_SOCKET";
/** How long the last events may take when the shim ends. */
const FLUSH_TIMEOUT_MS = 5000;
/** Whoever started us calls within milliseconds, unless it died. */
const UNUSED_MS = 60_000;

/** Serves the tasks of one sandbox on an inherited socket until containerd shuts the shim down. */
export async function serve(flags: ShimFlags): Promise<number> {
  const bundle = process.cwd();
  logToPipe(flags.debug);
  // A node that goes down ends us with its power; until then only containerd says when.
  for (const name of ["SIGTERM", "SIGINT", "SIGHUP"] as const) process.on(name, () => {});
  for (const event of ["uncaughtException", "unhandledRejection"] as const) {
    process.prependListener(event, (error: unknown) => log.error("the shim failed", { error }));
  }
  const { ttrpcAddress } = readEnvironment();
  const events = new EventPublisher(ttrpcAddress, flags.namespace);
  using lag = new EventLoopLag();
  const server = new TtrpcServer();
  const services = new ServiceHost(server, SERVICES);
  const pod = new Pod({
    namespace: flags.namespace,
    sandboxId: flags.id,
    bundle,
    containerdAddress: flags.address,
    ttrpcAddress,
    socketPath: process.env[SOCKET_VARIABLE] ?? "",
    events,
    onStarted: () => services.sandboxStarted(),
  });
  const ended = Promise.withResolvers<void>();
  services.offer({ pod, lag, shutdown: () => ended.resolve() });
  if (flags.adopt !== "no") await adopt(pod, flags.adopt);
  const serving = serveListener(server, new Fd(LISTENER_FD));
  const unused = setTimeout(() => {
    if (!services.used && pod.isEmpty) ended.resolve();
  }, UNUSED_MS);
  unused.unref();
  // The bundle is containerd's to remove.
  process.chdir("/");
  log.info("serving", { id: flags.id, namespace: flags.namespace });
  await ended.promise;
  serving[Symbol.dispose]();
  await server.shutdown();
  await pod.stop();
  await services.stop();
  await events.close(FLUSH_TIMEOUT_MS);
  await removeSocket(pod.options.socketPath);
  return 0;
}

async function adopt(pod: Pod, mode: "try" | "must"): Promise<void> {
  try {
    await pod.adopt();
  } catch (error) {
    log.error("cannot adopt the sandbox", { error });
    if (mode === "must") throw error;
    await pod.removeLeftover();
  }
}

async function removeSocket(path: string): Promise<void> {
  const { rm } = await import("node:fs/promises");
  if (path !== "") await rm(path, { force: true });
}

/** containerd reads the named pipe "log" of the bundle. Lines that it does not take in time are dropped. */
function logToPipe(debug: boolean): void {
  setLogLevel(debug ? "debug" : "info");
  let pipe: Fd;
  try {
    // For reading, too, so that a containerd that restarts does not break it.
    pipe = openFd("log", O.RDWR | O.NONBLOCK);
  } catch {
    setLogSink(() => {});
    return;
  }
  setLogSink((line) => void writeFd(pipe.number, Buffer.from(`${line}\n`)));
}
