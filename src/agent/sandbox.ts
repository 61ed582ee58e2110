import { HakoError } from "#base/error.ts";
import { validateId } from "#base/id.ts";
import { findStatus } from "#linux/file.ts";
import type { CreateContainerRequest, CreateSandboxRequest, KernelModule } from "#proto/agent.ts";
import type { Hooks } from "#proto/oci.ts";
import { logger } from "#telemetry/log.ts";
import type { Container } from "./container.ts";
import { type ContainerWorkshop, createContainer } from "./container-creation.ts";
import { setGuestDns } from "./guest-dns.ts";
import { findGuestHooks } from "./guest-hooks.ts";
import { LaunchError } from "./launcher/launch-error.ts";
import type { MemoryAgent } from "./memory-agent/memory-agent.ts";
import { SharedNamespaces } from "./shared-namespaces.ts";

const CONTAINERS_MAX = 1024;
const DESTROY_TIMEOUT_MS = 10_000;
/** Names below the run directory that are not containers. */
const reservedIds: ReadonlySet<string> = new Set(["shared", "sandbox", "image"]);
const log = logger("sandbox");

/** All that runs in this VM. */
export class Sandbox {
  readonly workshop: ContainerWorkshop;
  /** A container that is being created has its place already. */
  readonly #containers = new Map<string, Container | "creating">();
  #namespaces: SharedNamespaces | undefined;
  #memoryAgent: Promise<MemoryAgent> | undefined;
  #guestHooks: Hooks | undefined;
  #created = false;
  #destroyed = false;

  constructor(workshop: ContainerWorkshop) {
    this.workshop = workshop;
  }

  /** Prepares the guest for its containers; once. */
  async create(request: CreateSandboxRequest, signal?: AbortSignal): Promise<void> {
    if (this.#created) throw new HakoError("ALREADY_EXISTS", "Cannot create the sandbox: it exists");
    const guestHooks = request.guestHookPath === "" ? undefined : findGuestHooks(request.guestHookPath);
    request.kernelModules.forEach(checkModule);
    this.#created = true;
    this.#guestHooks = guestHooks;
    try {
      this.#namespaces = new SharedNamespaces(request.hostname);
      await this.workshop.storages.attach(request.storages, undefined, signal);
      setGuestDns(request.dns, this.workshop.runDirectory);
    } catch (error) {
      this.#namespaces?.[Symbol.dispose]();
      await this.workshop.storages.destroy();
      this.#created = false;
      throw error;
    }
    log.info("sandbox created", { sandbox: request.sandboxId });
  }

  /** Sets a container up; its first process waits for the start. Different containers are set up side by side. */
  async createContainer(request: CreateContainerRequest, signal?: AbortSignal): Promise<void> {
    const id = validateId(request.containerId, "container id");
    this.#reserve(id);
    const shared = this.#namespaces;
    const first = this.#containers.size === 1;
    try {
      if (request.sandboxPidns && !first && !shared?.hasPid) {
        throw new HakoError(
          "FAILED_PRECONDITION",
          `Cannot create container "${id}": the sandbox has no pid namespace`,
        );
      }
      const sharePid = request.sandboxPidns && !first;
      const context = {
        namespaces: { shared, sharePid },
        neighbours: this.#running(),
        guestHooks: this.#guestHooks,
      };
      const container = await createContainer(request, context, this.workshop, signal);
      if (first) shared?.sharePid(container.init.pid);
      this.#containers.set(id, container);
      if (this.#destroyed) await this.removeContainer(id, undefined);
    } catch (error) {
      this.#containers.delete(id);
      throw onlyProgramsAreMissing(error);
    }
    log.info("container created", { container: id });
  }

  #reserve(id: string): void {
    const action = `Cannot create container "${id}"`;
    if (this.#destroyed) throw new HakoError("FAILED_PRECONDITION", `${action}: the sandbox is destroyed`);
    if (reservedIds.has(id)) throw new HakoError("INVALID_ARGUMENT", `${action}: the name is reserved`);
    if (this.#containers.has(id)) throw new HakoError("ALREADY_EXISTS", `${action}: it exists`);
    if (this.#containers.size >= CONTAINERS_MAX) {
      throw new HakoError("RESOURCE_EXHAUSTED", `${action}: the sandbox has ${CONTAINERS_MAX} already`);
    }
    this.#containers.set(id, "creating");
  }

  /** Throws INVALID_ARGUMENT when there is none, as Kata's clients expect; FAILED_PRECONDITION while it is made. */
  lookupContainer(id: string): Container {
    const container = this.#containers.get(id);
    const name = JSON.stringify(id.slice(0, 160));
    if (!container) throw new HakoError("INVALID_ARGUMENT", `Cannot find container ${name}`);
    if (container === "creating")
      throw new HakoError("FAILED_PRECONDITION", `Container ${name} is being created`);
    return container;
  }

  /** What takes unused memory back; made at its first use. */
  async memoryAgent(): Promise<MemoryAgent> {
    this.#memoryAgent ??= import("./memory-agent/memory-agent.ts").then(
      ({ MemoryAgent }) => new MemoryAgent(() => this.#running().map(({ cgroup }) => cgroup.directory)),
    );
    return await this.#memoryAgent;
  }

  #running(): Container[] {
    return [...this.#containers.values()].filter((container) => container !== "creating");
  }

  /** Ends a container and forgets it. `timeoutMs` bounds the wait for its processes. */
  async removeContainer(id: string, timeoutMs: number | undefined, signal?: AbortSignal): Promise<void> {
    const container = this.lookupContainer(id);
    await container.remove(timeoutMs, signal);
    if (this.#containers.get(id) === container) this.#containers.delete(id);
    log.info("container removed", { container: id });
  }

  /** Ends everything: containers, storages, waits for events. No container can be made after it. */
  async destroy(signal?: AbortSignal): Promise<void> {
    this.#destroyed = true;
    this.workshop.oom.end();
    (await this.#memoryAgent)?.[Symbol.dispose]();
    await Promise.all(this.#running().map(({ id }) => this.#endContainer(id, signal)));
    await this.workshop.storages.destroy();
    this.#namespaces?.[Symbol.dispose]();
    log.info("sandbox destroyed");
  }

  /** The machine goes down in any case: a process that cannot be ended must not hold that up. */
  async #endContainer(id: string, signal: AbortSignal | undefined): Promise<void> {
    try {
      await this.removeContainer(id, DESTROY_TIMEOUT_MS, signal);
    } catch (error) {
      log.error("cannot remove container", { container: id, error });
    }
  }
}

/**
 * NOT_FOUND and PERMISSION_DENIED tell the client that the program is missing or cannot be executed (exit codes 127
 * and 126), so other failures of a creation must not carry them.
 */
function onlyProgramsAreMissing(caught: unknown): HakoError {
  const error = HakoError.from(caught);
  const ambiguous = error.code === "NOT_FOUND" || error.code === "PERMISSION_DENIED";
  if (!ambiguous || error instanceof LaunchError) return error;
  return new HakoError("FAILED_PRECONDITION", error.message, { cause: error.cause });
}

/** The guest kernel has no loadable modules; one that is built in is there already. */
function checkModule({ name }: KernelModule): void {
  const plain = name.replaceAll("-", "_");
  if (/^\w{1,64}$/.test(plain) && findStatus(`/sys/module/${plain}`)) return;
  throw new HakoError("NOT_FOUND", `Cannot load kernel module ${JSON.stringify(name)}: this kernel has none`);
}
