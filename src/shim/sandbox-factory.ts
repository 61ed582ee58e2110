import { HakoError } from "#base/error.ts";
import { annotatedHypervisor, applyAnnotations } from "#config/annotation.ts";
import type { Config, HypervisorName } from "#config/config.ts";
import { loadConfig } from "#config/load.ts";
import { findPaths, type Paths } from "#config/paths.ts";
import type { Spec } from "#oci/runtime-spec.ts";
import { Options } from "#proto/containerd/runtime-options.ts";
import type { Any } from "#proto/google/protobuf/any.ts";
import { podLimits } from "#runtime/pod-limits.ts";
import { lookupHandler } from "#runtime/registry.ts";
import type { NetworkMode, Sandbox } from "#runtime/sandbox.ts";
import { StateStore } from "#runtime/state-store.ts";
import { Timeline } from "#runtime/timeline.ts";
import { sandboxKey } from "./address.ts";
import { anyName, unpackAny } from "./any.ts";

/** Linux' own default for /dev/shm of a pod, as kubelet and Docker have it. */
const SHM_MIB = 64;
/** Whoever asks containerd for hako asks for a machine: the settings cannot take it away. */
const HANDLER = "virt_container";

export interface SandboxRequest {
  /** Of the first container, or of the sandbox itself. */
  readonly config: Spec;
  /** More containers may follow. */
  readonly isPod: boolean;
  /** Of the runtime, from containerd's configuration or the client. */
  readonly options?: Any;
}

export interface SandboxNames {
  readonly namespace: string;
  readonly sandboxId: string;
}

/** Claims a sandbox for a pod or a single container; it is not started yet. */
export async function makeSandbox(
  { namespace, sandboxId }: SandboxNames,
  { config: spec, isPod, options }: SandboxRequest,
  signal: AbortSignal,
): Promise<Sandbox> {
  const paths = findPaths();
  const config = await loadSettings(paths, spec, options);
  const store = new StateStore(paths.runDir);
  const handler = await lookupHandler(HANDLER, { paths, config, store, timeline: new Timeline() });
  return handler.createSandbox(
    {
      id: sandboxKey(namespace, sandboxId),
      name: `${namespace}.${sandboxId}`,
      hostname: spec.hostname ?? "",
      limits: podLimits(spec),
      ...(spec.linux?.cgroupsPath && { cgroupsPath: spec.linux.cgroupsPath }),
      network: networkOf(spec),
      detached: true,
      autoRemove: true,
      keeper: "containerd",
      hotplug: isPod,
      ...(isPod && { sharedShmMib: SHM_MIB }),
      timing: false,
    },
    signal,
  );
}

/** Without a path nobody has put interfaces into the namespace; `/proc/0` stands for none, too. */
function networkOf({ linux }: Spec): NetworkMode {
  const path = linux?.namespaces?.find(({ type }) => type === "network")?.path;
  return path === undefined || path === "" || path.startsWith("/proc/0/") ? "none" : `netns:${path}`;
}

/** Takes over a sandbox whose shim died. Throws as `RuntimeHandler.adoptSandbox`. */
export async function adoptSandbox({ namespace, sandboxId }: SandboxNames): Promise<Sandbox> {
  const paths = findPaths();
  const config = await loadConfig(paths.configFile, paths.configDialect);
  const store = new StateStore(paths.runDir);
  const handler = await lookupHandler(HANDLER, { paths, config, store, timeline: new Timeline() });
  return handler.adoptSandbox(sandboxKey(namespace, sandboxId));
}

/** The file that the runtime's options name, or hako's own, with what the pod's annotations change. */
async function loadSettings(paths: Paths, spec: Spec, options: Any | undefined): Promise<Config> {
  const asked = configPath(options);
  const config = await (asked === undefined
    ? loadConfig(paths.configFile, paths.configDialect)
    : loadConfig(asked, asked.includes("/kata-containers/") ? "kata" : "hako"));
  const annotations = spec.annotations ?? {};
  const name = annotatedHypervisor(annotations) ?? config.runtime.hypervisorName;
  const table = name in config.hypervisor ? (name as HypervisorName) : "qemu";
  return applyAnnotations(config, annotations, table);
}

/** The configuration file that the runtime's options name, if they do. Throws INVALID_ARGUMENT. */
function configPath(options: Any | undefined): string | undefined {
  if (!options || options.value.length === 0) return undefined;
  if (anyName(options) !== "runtimeoptions.v1.Options") return undefined;
  const { configPath } = unpackAny(options, Options, "the runtime's options");
  if (configPath === "") return undefined;
  if (configPath.startsWith("/")) return configPath;
  throw new HakoError(
    "INVALID_ARGUMENT",
    `Cannot use configuration "${configPath}": the path is not absolute`,
  );
}
