import { HakoError } from "#base/error.ts";
import { Cgroup } from "#linux/cgroup/v2/cgroup.ts";
import type { ControlFileWatcher } from "#linux/cgroup/v2/control-file-watcher.ts";
import { MS, mountFileSystem, unmount } from "#linux/mount.ts";
import type { CreateContainerRequest } from "#proto/agent.ts";
import type { Hooks, Linux, Process, Spec } from "#proto/oci.ts";
import { check, E, isErrno } from "#sys/errno.ts";
import type { Fd } from "#sys/fd.ts";
import { cstr, SYS, syscall } from "#sys/syscall.ts";
import { logger } from "#telemetry/log.ts";
import type { PassedConnections, PassedStreams } from "./channel/passed-streams.ts";
import { takeStreams } from "./channel/stream-ports.ts";
import { Container } from "./container.ts";
import { ContainerHooks } from "./container-hooks.ts";
import { cgroupComponents, cgroupResources, deviceRules } from "./container-resources.ts";
import { placeDevices } from "./device/device-handler.ts";
import type { DeviceLookup } from "./device/hotplug.ts";
import { findTerminationLog } from "./diagnostics.ts";
import { mergeHooks } from "./guest-hooks.ts";
import type { SharedSource } from "./launcher/container-request.ts";
import type { HookSubject } from "./launcher/hook-fields.ts";
import type { Launcher } from "./launcher/launcher.ts";
import type { OomEvents } from "./oom.ts";
import { ContainerProcess } from "./process.ts";
import { descriptorPath, openBelow, openRoot, splitBelow } from "./safe-directory.ts";
import { unsealEnvironment, unsealMounts } from "./sealed-secret.ts";
import { containerName, findSharedMounts } from "./shared-mounts.ts";
import { placeNamespaces, type SharedNamespaces } from "./shared-namespaces.ts";
import { checkSpec } from "./spec-check.ts";
import type { StorageSet } from "./storage/storage-set.ts";
import { resolveProcessUser } from "./user.ts";

const AT_REMOVEDIR = 0x200;
const log = logger("container");

/** What containers are made with. */
export interface ContainerWorkshop {
  readonly launcher: Launcher;
  readonly watcher: ControlFileWatcher;
  readonly oom: OomEvents;
  readonly storages: StorageSet;
  readonly devices: DeviceLookup;
  readonly runDirectory: string;
  readonly cgroupRoot: string;
  readonly pipeSize: number;
  /** Connections of the host that may be standard streams; undefined when there can be none. */
  readonly passed: PassedConnections | undefined;
}

/** The namespaces of the sandbox as one container may use them. */
export interface NamespaceChoice {
  readonly shared: SharedNamespaces | undefined;
  readonly sharePid: boolean;
}

/** What a new container has to know of its sandbox. */
export interface SandboxContext {
  readonly namespaces: NamespaceChoice;
  /** The containers that are there. */
  readonly neighbours: readonly Container[];
  /** Hooks that the guest image brings for every container. */
  readonly guestHooks: Hooks | undefined;
}

/** A specification whose needed parts are there. */
interface CheckedSpec extends Spec {
  Process: Process;
  Linux: Linux;
}

function refuse(id: string, code: "INVALID_ARGUMENT" | "UNIMPLEMENTED", reason: string): never {
  throw new HakoError(code, `Cannot create container "${id}": ${reason}`);
}

/** What the request asks for must be what this agent does; nothing is passed over in silence. */
function checkRequest(request: CreateContainerRequest): CheckedSpec {
  const { containerId: id, OCI: spec } = request;
  if (!spec?.Process || !spec.Linux || !spec.Root) {
    refuse(id, "INVALID_ARGUMENT", "its specification lacks process, root or linux");
  }
  if (spec.Process.Args.length === 0) refuse(id, "INVALID_ARGUMENT", "its process has no arguments");
  checkSpec(spec);
  return { ...spec, Process: spec.Process, Linux: spec.Linux };
}

/**
 * A file system in memory of the container's own for its mount points and writable layer: taken away at once when
 * the container goes, whatever it wrote.
 */
async function mountContainerDirectory(runDirectory: string, id: string): Promise<void> {
  using root = openRoot(runDirectory);
  using directory = openBelow(root, [id], { make: 0o755 });
  const target = descriptorPath(directory);
  const flags = MS.NOSUID | MS.NODEV;
  await mountFileSystem({ source: "hako", target, fstype: "tmpfs", flags, data: "mode=755" });
}

async function removeContainerDirectory(runDirectory: string, id: string): Promise<void> {
  using root = openRoot(runDirectory);
  await unmount(`${descriptorPath(root)}/${id}`, { writesNothing: true });
  check(syscall(SYS.unlinkat, root.number, cstr(id), AT_REMOVEDIR), `Cannot remove directory "${id}"`);
}

function makeCgroup(
  spec: CheckedSpec,
  workshop: ContainerWorkshop,
  id: string,
  undo: AsyncDisposableStack,
): Cgroup {
  const components = cgroupComponents(spec.Linux.CgroupsPath, id);
  const cgroup = Cgroup.create(workshop.cgroupRoot, components, workshop.watcher);
  undo.defer(logged("remove the cgroup", id, () => cgroup.remove()));
  if (spec.Linux.Resources) cgroup.apply(cgroupResources(spec.Linux.Resources));
  cgroup.setDevices(deviceRules(spec.Linux));
  return cgroup;
}

/** A function that opens the root directory, which must be there, anew each time: held open it could not be unmounted. */
function rootfsOpener(runDirectory: string, path: string): () => Fd {
  const names = splitBelow(runDirectory, path);
  return () => {
    using root = openRoot(runDirectory);
    try {
      return openBelow(root, names);
    } catch (cause) {
      const code = isErrno(cause, E.ENOENT) ? "NOT_FOUND" : "FAILED_PRECONDITION";
      throw new HakoError(code, `Cannot open the root directory "${path}" of a container`, { cause });
    }
  };
}

/** A step of taking apart that logs its failure: it must keep no other step from happening. */
function logged(what: string, id: string, step: () => Promise<void>): () => Promise<void> {
  return async () => {
    try {
      await step();
    } catch (error) {
      log.error(`cannot ${what}`, { container: id, error });
    }
  };
}

/**
 * Sets up everything that a container needs and launches its first process, which waits for the start. On failure
 * all of it is undone in reverse.
 */
export async function createContainer(
  request: CreateContainerRequest,
  { namespaces, neighbours, guestHooks }: SandboxContext,
  workshop: ContainerWorkshop,
  signal?: AbortSignal,
): Promise<Container> {
  const id = request.containerId;
  const { runDirectory, storages } = workshop;
  const checked = checkRequest(request);
  const openRootfs = rootfsOpener(runDirectory, checked.Root?.Path ?? "");
  await using undo = new AsyncDisposableStack();
  const resources = undo.use(new AsyncDisposableStack());

  const placed = await placeDevices(checked, request.devices, workshop.devices, signal);
  await mountContainerDirectory(runDirectory, id);
  resources.defer(logged("remove the directory", id, () => removeContainerDirectory(runDirectory, id)));
  const mountPoints = await storages.attach(request.storages, id, signal);
  resources.defer(() => storages.release(mountPoints));

  using root = openRootfs();
  const linux = placed.Linux ?? checked.Linux;
  const spec: CheckedSpec = {
    ...placed,
    Mounts: await unsealMounts(placed.Mounts, { runDirectory, containerId: id }, signal),
    Hooks: mergeHooks(checked.Hooks, guestHooks),
    Process: await unsealEnvironment(
      resolveProcessUser(placed.Process ?? checked.Process, root, request.stringUser),
      signal,
    ),
    Linux: {
      ...linux,
      Namespaces: placeNamespaces(linux.Namespaces, namespaces.shared, namespaces.sharePid),
    },
  };
  const subject = { id, bundle: `${runDirectory}/${id}`, annotations: spec.Annotations };
  const hooks = new ContainerHooks(spec.Hooks, subject);
  const sharedMounts = findSharedMounts(request.sharedMounts, id, spec, neighbours);
  const cgroup = makeCgroup(spec, workshop, id, resources);
  const oom = resources.use(workshop.oom.watch(id, cgroup.directory));
  const container = new Container({
    id,
    name: containerName(spec),
    cgroup,
    seccomp: spec.Linux.Seccomp,
    pipeSize: workshop.pipeSize,
    launcher: workshop.launcher,
    passed: workshop.passed,
    oom,
    terminationLog: findTerminationLog(spec),
    hooks,
    openRootfs,
    resources,
  });
  const passed = takeStreams(workshop.passed, request);
  const extras = { hooks, subject, sharedMounts, passed, signal };
  container.begin(await launchInit(container, spec, workshop, extras));
  // From here on the container owns its resources.
  undo.move();
  return container;
}

interface InitExtras {
  readonly hooks: ContainerHooks;
  readonly subject: HookSubject;
  readonly sharedMounts: readonly SharedSource[];
  readonly passed: PassedStreams | undefined;
  readonly signal: AbortSignal | undefined;
}

async function launchInit(
  container: Container,
  spec: CheckedSpec,
  workshop: ContainerWorkshop,
  { hooks, subject, sharedMounts, passed, signal }: InitExtras,
): Promise<ContainerProcess> {
  using cgroup = container.cgroup.open();
  return await ContainerProcess.launch({
    id: "",
    process: spec.Process,
    pipeSize: workshop.pipeSize,
    passed,
    ended: () => container.processEnded(),
    launch: (stdio) =>
      workshop.launcher.create({
        spec,
        rootfs: spec.Root?.Path ?? "",
        cgroup,
        stdio,
        hookSubject: subject,
        sharedMounts,
        hold: hooks.holding(signal),
        signal,
      }),
  });
}
