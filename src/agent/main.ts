import { withDeadline } from "#base/deadline.ts";
import { HakoError } from "#base/error.ts";
import { closeDataHub, DEFAULT_SOCKET, type HubOptions, openDataHub } from "#cdh/process-hub.ts";
import { ControlFileWatcher } from "#linux/cgroup/v2/control-file-watcher.ts";
import { readText, writeText } from "#linux/file.ts";
import { readMountTable } from "#linux/mount.ts";
import { AgentServiceDefinition } from "#proto/agent.ts";
import { HealthDefinition } from "#proto/health.ts";
import { check } from "#sys/errno.ts";
import { writeFd } from "#sys/fd.ts";
import { SYS, syscall } from "#sys/syscall.ts";
import { logger, setLogLevel, setLogSink } from "#telemetry/log.ts";
import { TtrpcServer } from "#ttrpc/server.ts";
import type { Channels } from "./channel/open-channels.ts";
import type { PassedConnections } from "./channel/passed-streams.ts";
import { monotonicNanoseconds } from "./clock.ts";
import type { DeviceLookup } from "./device/hotplug.ts";
import { Launcher } from "./launcher/launcher.ts";
import { OomEvents } from "./oom.ts";
import { type AgentOptions, parseOptions } from "./options.ts";
import { PolicyGate } from "./policy/gate.ts";
import { type AgentRuntime, agentService } from "./rpc/agent-service.ts";
import { healthService } from "./rpc/health.ts";
import { Sandbox } from "./sandbox.ts";
import { serveAt } from "./server.ts";
import type { StandaloneHost } from "./standalone/host.ts";
import { StorageSet } from "./storage/storage-set.ts";

const STDERR = 2;
const RLIMIT_CORE = 4;
const RLIM_INFINITY = 0xffff_ffff_ffff_ffffn;
const RLIMIT_NOFILE = 7;
/** Each process of a container holds up to four descriptors. */
const DESCRIPTORS = 65536;
/** Memory shortage must hit containers, never the agent (proc(5), oom_score_adj). */
const OOM_SCORE = "-1000";
/** A client that does not read must not keep the machine up. */
const SHUTDOWN_TIMEOUT_MS = 5000;
/** Long polls for the output of many containers are all calls in flight. */
const CALLS_MAX = 8192;
const EXIT_LAUNCHER_LOST = 1;
const HUB_CONFIGURATION = "/run/confidential-containers/initdata/cdh.toml";
const log = logger("agent");

/** One line to the console. `process.stderr` would bring in node's streams: 0.4 s of CPU in an emulated guest. */
function say(line: string): void {
  writeFd(STDERR, Buffer.from(`${line}\n`));
}

/** Where the unified cgroup hierarchy is mounted. */
function findCgroupRoot(): string {
  const root = readMountTable().find(({ fstype }) => fstype === "cgroup2")?.mountPoint;
  if (root) return root;
  throw new HakoError("FAILED_PRECONDITION", "Cannot run containers: no cgroup2 file system is mounted");
}

function raiseLimits(options: AgentOptions): void {
  const limit = BigUint64Array.of(BigInt(DESCRIPTORS), BigInt(DESCRIPTORS));
  const result = syscall(SYS.prlimit64, 0, RLIMIT_NOFILE, limit, null);
  if (options.developerMode)
    syscall(SYS.prlimit64, 0, RLIMIT_CORE, BigUint64Array.of(RLIM_INFINITY, RLIM_INFINITY), null);
  if (result < 0) log.warn("cannot raise the limit of open files", { errno: -result });
  try {
    writeText("/proc/self/oom_score_adj", OOM_SCORE);
  } catch (error) {
    log.warn("cannot protect the agent from memory shortage", { error });
  }
}

/** The descriptor that hako-init hands down to the agent of a guest. */
function inheritedLauncher(): number | undefined {
  const inherited = process.env.HAKO_LAUNCHER_FD;
  return inherited && /^\d{1,4}$/.test(inherited) ? Number(inherited) : undefined;
}

/** hako-init hands its end of the launcher socket down; outside a VM we start it ourselves. */
async function openLauncher(options: AgentOptions, host: StandaloneHost | undefined): Promise<Launcher> {
  const inherited = inheritedLauncher();
  if (inherited !== undefined) return Launcher.attach(inherited);
  if (host) return await host.openLauncher();
  if (options.launcherPath !== undefined) return await Launcher.spawn(options.launcherPath);
  throw new HakoError("FAILED_PRECONDITION", "Cannot start the agent: no launcher, give one by --launcher");
}

/** Most guests have none of these channels, and nothing of them is loaded then. */
async function openSideChannels(options: AgentOptions): Promise<Channels | undefined> {
  const { logPort, debugConsole, passfdPort, tracing } = options;
  if (logPort === 0 && !debugConsole && passfdPort === 0 && !tracing) return undefined;
  const { openChannels } = await import("./channel/open-channels.ts");
  const channels = await openChannels(options);
  const fetched = channels.log;
  if (fetched) {
    setLogSink((line) => {
      // Until somebody fetches the log, the console has it as well.
      if (!fetched.connected) say(line);
      fetched.write(line);
    });
  }
  return channels;
}

function makeSandbox(
  options: AgentOptions,
  launcher: Launcher,
  passed: PassedConnections | undefined,
): Sandbox {
  const { runDirectory } = options;
  const watcher = new ControlFileWatcher();
  const devices: DeviceLookup = { timeoutMs: options.hotplugTimeoutMs, sysfs: "/sys", dev: "/dev" };
  return new Sandbox({
    launcher,
    watcher,
    oom: new OomEvents(watcher),
    storages: new StorageSet({ runDirectory, devices }),
    devices,
    runDirectory,
    cgroupRoot: options.cgroupRoot ?? findCgroupRoot(),
    pipeSize: options.containerPipeSize,
    passed,
  });
}

/** Our own hub is configured by what the initial data of a confidential machine brings. */
function hubOptions({ dataHub, cdhApiTimeoutMs, imagePullTimeoutMs }: AgentOptions): HubOptions {
  const given = dataHub.startsWith("unix://") ? "external" : dataHub.startsWith("/") ? "own" : undefined;
  if (!given && dataHub !== "auto" && dataHub !== "none") {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Cannot use data hub "${dataHub}": write auto, none, unix://PATH or the path of a file`,
    );
  }
  return {
    kind: given ?? (dataHub === "none" ? "none" : "auto"),
    socket: given === "external" ? dataHub.slice("unix://".length) : DEFAULT_SOCKET,
    configFile: given === "own" ? dataHub : HUB_CONFIGURATION,
    timeoutMs: cdhApiTimeoutMs,
    imagePullTimeoutMs,
  };
}

/** Without a policy all calls are answered, until somebody sets one. */
async function openGate(policy: string | undefined): Promise<PolicyGate> {
  const gate = new PolicyGate();
  if (policy === undefined) return gate;
  const { readPolicy } = await import("#policy/default-policy.ts");
  await gate.set(readPolicy(policy));
  return gate;
}

/** An agent that no hako-init started, and that is not told otherwise, is on somebody's host. */
async function enterHost(options: AgentOptions): Promise<StandaloneHost | undefined> {
  if (inheritedLauncher() !== undefined || options.ownMachine) return undefined;
  const { StandaloneHost } = await import("./standalone/host.ts");
  return await StandaloneHost.enter(options, findCgroupRoot);
}

/** The agent's role: serves the sandbox until it is destroyed. `args` are the words after the role's name. */
export async function run(args: readonly string[]): Promise<number> {
  const guest = inheritedLauncher() !== undefined || args.includes("--own-machine");
  // The command line of a host's kernel is not for us.
  const given = await parseOptions(args, process.env, guest ? readText("/proc/cmdline") : "");
  setLogLevel(given.logLevel);
  setLogSink(say);
  await using host = await enterHost(given);
  const options = host?.options ?? given;
  check(syscall(SYS.umask, 0o022), "Cannot set the umask");
  raiseLimits(options);
  await using channels = await openSideChannels(options);
  for (const name of options.unknown) log.warn("an option is unknown and left out", { name });
  await openDataHub(hubOptions(options));
  if (options.guestComponents !== "none")
    log.info("no attestation agent and no REST server are started here");
  const launcher = await openLauncher(options, host);
  return await serve(options, launcher, { host, channels });
}

async function serve(
  options: AgentOptions,
  launcher: Launcher,
  { host, channels }: { readonly host: StandaloneHost | undefined; readonly channels: Channels | undefined },
): Promise<number> {
  const destroyed = Promise.withResolvers<void>();
  const server = new TtrpcServer({ calls: CALLS_MAX });
  const serveSandbox = async (afterDestroy: AgentRuntime["afterDestroy"]) => {
    const sandbox = makeSandbox(options, launcher, channels?.passed);
    const gate = await openGate(options.policy);
    const methods = agentService({ sandbox, afterDestroy });
    const service = gate.guard(host?.restrict(methods) ?? methods);
    server.register(AgentServiceDefinition, channels?.spans?.trace(service) ?? service);
    host?.onSignal(() => sandbox.destroy().finally(destroyed.resolve));
    const { memoryAgent } = options;
    if (!memoryAgent.enabled) return;
    const agent = await sandbox.memoryAgent();
    agent.setMemcg({ disabled: false, ...memoryAgent.memcg });
    agent.setCompact({ disabled: false, ...memoryAgent.compact });
  };
  /** What practice has left in the heap would be in every clone. */
  const replaceSandbox = async () => {
    server.unregister(AgentServiceDefinition);
    await serveSandbox(destroyed.resolve);
    Bun.gc(true);
  };
  await serveSandbox(options.template ? replaceSandbox : destroyed.resolve);
  server.register(HealthDefinition, healthService);
  const listen = () => serveAt(server, options.server);
  const listener = await (host ? host.listen(listen) : listen());
  log.info("serving", { address: options.server, runDirectory: options.runDirectory });
  if (options.timing) say(`hako-timing agent-ready ${monotonicNanoseconds()}`);

  const lost = launcher.lost.then(() => true);
  if (await Promise.race([destroyed.promise.then(() => false), lost])) {
    log.error("the launcher is gone");
    return EXIT_LAUNCHER_LOST;
  }
  await withDeadline(SHUTDOWN_TIMEOUT_MS, "answer the calls under way", () => server.shutdown()).catch(
    (error) => log.warn("clients did not take their answers", { error }),
  );
  listener[Symbol.dispose]();
  await closeDataHub();
  await launcher.powerOff();
  if (host) await Promise.race([launcher.lost, Bun.sleep(SHUTDOWN_TIMEOUT_MS)]);
  return 0;
}
