import { join } from "node:path";
import { HakoError } from "#base/error.ts";
import { executing } from "#cli/exit-code.ts";
import type { RunRequest } from "#cli/run-request.ts";
import type { Config } from "#config/config.ts";
import { loadConfig } from "#config/load.ts";
import { findPaths } from "#config/paths.ts";
import { ManagerDefinition } from "#proto/manager.ts";
import type { Container } from "#runtime/container.ts";
import { lookupHandler } from "#runtime/registry.ts";
import type { Sandbox } from "#runtime/sandbox.ts";
import { StateStore } from "#runtime/state-store.ts";
import type { Timeline } from "#runtime/timeline.ts";
import { serveUnix } from "#ttrpc/listener.ts";
import { TtrpcServer } from "#ttrpc/server.ts";
import { MANAGER_SOCKET } from "./client.ts";
import { ManagerService } from "./service.ts";

/** Somebody took the container away under us (hako rm -f). */
export class ContainerRemoved extends HakoError {
  /** 128 + SIGKILL. */
  readonly exitCode = 137;

  constructor() {
    super("ABORTED", "The container was removed");
  }
}

/**
 * A sandbox with one container, run by this process, and the service that lets other hako processes at it.
 * Disposing tears all down in reverse.
 */
export class SandboxHost implements AsyncDisposable {
  readonly sandbox: Sandbox;
  readonly container: Container;
  readonly config: Config;
  readonly #cleanup: AsyncDisposableStack;
  readonly #removed: Promise<never>;

  private constructor(
    parts: { sandbox: Sandbox; container: Container; config: Config },
    cleanup: AsyncDisposableStack,
    removed: Promise<never>,
  ) {
    this.sandbox = parts.sandbox;
    this.container = parts.container;
    this.config = parts.config;
    this.#cleanup = cleanup;
    this.#removed = removed;
  }

  /** Starts everything up to a container whose process is created but waits. On failure nothing is left behind. */
  static async create(request: RunRequest, timeline: Timeline, signal?: AbortSignal): Promise<SandboxHost> {
    const paths = findPaths();
    const config = await loadConfig(paths.configFile, paths.configDialect);
    const store = new StateStore(paths.runDir);
    const handler = await lookupHandler(request.runtime, { paths, config, store, timeline });
    await using cleanup = new AsyncDisposableStack();

    const gone = Promise.withResolvers<void>();
    const removal = Promise.withResolvers<never>();
    // The host may be gone before anybody waits.
    removal.promise.catch(() => {});
    const server = new TtrpcServer();
    // Whoever asked for the removal waits for `gone`, so that answer leaves before the server ends.
    cleanup.defer(() => server.shutdown());
    cleanup.defer(() => gone.resolve());

    const sandbox = cleanup.use(await handler.createSandbox(request.sandbox, signal));
    const container = await sandbox.addContainer(request.container, signal);
    await sandbox.start(signal);
    await timeline.measure("container created", executing(container.create(signal)));

    const remove = async () => {
      await sandbox.removeOnStop();
      removal.reject(new ContainerRemoved());
      await gone.promise;
    };
    server.register(ManagerDefinition, new ManagerService(sandbox, remove));
    cleanup.use(serveUnix(server, join(sandbox.dir, MANAGER_SOCKET)));
    return new SandboxHost({ sandbox, container, config }, cleanup.move(), removal.promise);
  }

  /** The container's exit code. Throws ContainerRemoved, and when the sandbox breaks under the container. */
  async wait(): Promise<number> {
    return Promise.race([this.container.wait(), this.sandbox.broken, this.#removed]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#cleanup.disposeAsync();
  }
}
