import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Launcher } from "#agent/launcher/launcher.ts";
import { type AgentOptions, DEFAULT_RUN_DIRECTORY } from "#agent/options.ts";
import type { AgentMethods } from "#agent/rpc/agent-service.ts";
import { findEmbedded } from "#base/embedded.ts";
import { HakoError } from "#base/error.ts";
import { removeCgroupTree } from "#linux/cgroup/v2/tree.ts";
import { findStatus } from "#linux/file.ts";
import { insideNetwork } from "#linux/network-namespace.ts";
import { type Fd, memfd } from "#sys/fd.ts";
import { logger } from "#telemetry/log.ts";
import { enterOwnMounts } from "./own-mounts.ts";
import { enterOwnNetwork } from "./own-network.ts";
import { restrictToSandbox } from "./restriction.ts";

const log = logger("standalone");

/**
 * What an agent needs on a host without a virtual machine, all of it its own: mounts, network, run directory, cgroup and
 * launcher. The host is changed only where options say so; disposing takes everything away again.
 */
export class StandaloneHost implements AsyncDisposable {
  /** The options with all that was left open filled in. */
  readonly options: AgentOptions;
  readonly #home: Fd | undefined;
  readonly #cleanup: AsyncDisposableStack;

  private constructor(options: AgentOptions, home: Fd | undefined, cleanup: AsyncDisposableStack) {
    this.options = options;
    this.#home = home;
    this.#cleanup = cleanup;
  }

  /** Begins the program anew in a mount namespace of its own if it is not in one. */
  static async enter(given: AgentOptions, cgroupMount: () => string): Promise<StandaloneHost> {
    checkPolicy(given.policy);
    enterOwnMounts();
    await using undo = new AsyncDisposableStack();
    const home = given.ownNetwork ? undo.use(enterOwnNetwork()) : undefined;
    const options = {
      ...given,
      runDirectory:
        given.runDirectory === DEFAULT_RUN_DIRECTORY ? makeRunDirectory(undo) : given.runDirectory,
      cgroupRoot: given.cgroupRoot ?? makeCgroup(cgroupMount(), undo),
    };
    return new StandaloneHost(options, home, undo.move());
  }

  /** Starts hako-init as the launcher: from --launcher, or the one inside the executable. */
  async openLauncher(): Promise<Launcher> {
    const { launcherPath } = this.options;
    if (launcherPath !== undefined) return await Launcher.spawn(launcherPath);
    const embedded = findEmbedded("hako-init");
    if (!embedded) {
      throw new HakoError(
        "FAILED_PRECONDITION",
        "Cannot start the agent: no launcher, give one by --launcher",
      );
    }
    using program = memfd("hako-init", readFileSync(embedded.path));
    return await Launcher.spawn(program);
  }

  /** Opens a socket in the network that the agent is to be reached in. */
  listen<T>(open: () => T): T {
    return this.#home ? insideNetwork(this.#home.number, open) : open();
  }

  restrict(methods: AgentMethods): AgentMethods {
    return restrictToSandbox(methods, this.#home !== undefined);
  }

  /** Ends what runs when somebody ends the agent; once. */
  onSignal(end: () => Promise<void>): void {
    for (const name of ["SIGTERM", "SIGINT", "SIGHUP"] as const) {
      process.removeAllListeners(name);
      process.once(name, () => {
        end().catch((error) => log.error("cannot end the sandbox", { error }));
      });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#cleanup.disposeAsync();
  }
}

/** Said before anything is made: a path is easily mistyped. */
function checkPolicy(policy: string | undefined): void {
  if (policy === undefined || !policy.includes("/") || findStatus(policy)) return;
  throw new HakoError(
    "NOT_FOUND",
    `Cannot start the agent: there is no policy file "${policy}"; make it, or use --policy allow-all`,
  );
}

function makeRunDirectory(undo: AsyncDisposableStack): string {
  const path = mkdtempSync(join(tmpdir(), "hako-host-agent-"));
  undo.defer(() => {
    try {
      rmSync(path, { recursive: true });
    } catch (error) {
      log.warn("cannot remove the run directory", { path, error });
    }
  });
  return path;
}

function makeCgroup(mount: string, undo: AsyncDisposableStack): string {
  const path = join(mount, `hako-host-agent-${process.pid}`);
  mkdirSync(path);
  undo.defer(() => {
    if (removeCgroupTree(path) < 0) log.warn("cannot remove the cgroup", { path });
  });
  return path;
}
