import { HakoError } from "#base/error.ts";
import { adjustCapabilities } from "#oci/capability.ts";
import { DEFAULT_PATH } from "#oci/default-container.ts";
import type { ImageConfig } from "#oci/image-spec.ts";
import { expand, nameOf, readEnvironment } from "./environment.ts";
import type { Manifest, ManifestNode } from "./manifest.ts";
import type { ContainerPolicy } from "./pod-policy.ts";
import { mountPolicy, POD_MOUNTS, storagePolicies, type VolumeKind } from "./volume-policy.ts";

/** The configuration of an image by its reference in the manifest; undefined when nobody told. */
export type ImageLookup = (image: string) => ImageConfig | undefined;

export interface PodContainers {
  readonly containers: ContainerPolicy[];
  readonly envPatterns: string[];
}

/** What the engine sets in the sandbox of every pod. */
const POD_SYSCTLS: Readonly<Record<string, string>> = {
  "net.ipv4.ip_unprivileged_port_start": "0",
  "net.ipv4.ping_group_range": "0 2147483647",
};
const PAUSE_USER = 65535;

/** Kinds of volumes by the member that says so. */
const volumeKinds: Readonly<Record<string, VolumeKind>> = {
  configMap: "copied",
  secret: "copied",
  projected: "copied",
  downwardAPI: "copied",
  emptyDir: "scratch",
  hostPath: "host",
  persistentVolumeClaim: "host",
};
/** Volumes that are read-only whatever the manifest says. */
const FIXED: ReadonlySet<string> = new Set(["configMap", "secret", "projected", "downwardAPI"]);

/** Reads all containers of a pod. Throws INVALID_ARGUMENT, NOT_FOUND and UNIMPLEMENTED naming the place. */
export function readPod(pod: ManifestNode, { values }: Manifest, findImage: ImageLookup): PodContainers {
  const spec = pod.at("spec");
  const lists = [spec.at("initContainers"), spec.at("containers")];
  const nodes = lists.flatMap((list) => list.items());
  if (nodes.length === 0) throw spec.at("containers").wrong("a list of containers");
  const patterns: string[] = [];
  const containers = nodes.map((node) => readContainer(node, spec, values, findImage, patterns));
  return { containers: [pauseContainer(spec), ...containers], envPatterns: [...new Set(patterns)] };
}

function readContainer(
  node: ManifestNode,
  pod: ManifestNode,
  values: Manifest["values"],
  findImage: ImageLookup,
  patterns: string[],
): ContainerPolicy {
  const image = node.at("image").text();
  const config = findImage(image);
  const environment = readEnvironment(node, [`PATH=${DEFAULT_PATH}`, ...(config?.Env ?? [])], values);
  patterns.push(...environment.patterns);
  const known = new Map(environment.entries.map((entry) => [nameOf(entry), entry]));
  const security = node.at("securityContext");
  const privileged = security.at("privileged").flag() ?? false;
  const capabilities = security.at("capabilities");
  const added = privileged ? ["ALL"] : capabilities.at("add").strings();
  const { mounts, kinds } = readMounts(node, pod);
  return {
    name: node.at("name").text(),
    args: readArguments(node, config).map((word) => expand(word, known)),
    cwd: node.at("workingDir").find() ?? (config?.WorkingDir || "/"),
    env: environment.entries,
    user: readUser(node, pod, config),
    named_user: null,
    terminal: node.at("tty").flag() ?? false,
    stdin: node.at("stdin").flag() ?? false,
    read_only_root: security.at("readOnlyRootFilesystem").flag() ?? false,
    no_new_privileges: security.at("allowPrivilegeEscalation").flag() === false,
    privileged,
    capabilities: adjustCapabilities(added, privileged ? [] : capabilities.at("drop").strings()),
    sysctls: { ...POD_SYSCTLS, ...readSysctls(pod) },
    mounts: [
      ...mounts,
      ...POD_MOUNTS.filter(({ destination }) => !mounts.some((mount) => mount.destination === destination)),
    ],
    storages: storagePolicies(kinds),
    exec_commands: readCommands(node),
  };
}

function readArguments(node: ManifestNode, config: ImageConfig | undefined): string[] {
  const command = node.at("command").strings();
  const args = node.at("args").exists ? node.at("args").strings() : undefined;
  if (command.length > 0) return [...command, ...(args ?? [])];
  if (!config) {
    const image = node.at("image").text();
    throw new HakoError(
      "INVALID_ARGUMENT",
      `The entry point of image "${image}" is not known: give the image by --image ${image}=oci:DIR, or "command" in the manifest`,
    );
  }
  return [...(config.Entrypoint ?? []), ...(args ?? config.Cmd ?? [])];
}

/** Names cannot be looked up here: the image's files are not read. */
function readUser(
  node: ManifestNode,
  pod: ManifestNode,
  config: ImageConfig | undefined,
): ContainerPolicy["user"] {
  const [own, shared] = [node.at("securityContext"), pod.at("securityContext")];
  const [imageUser = "", imageGroup = ""] = (config?.User ?? "").split(":");
  const number = (key: string, fallback: string) => {
    const asked = own.at(key).number() ?? shared.at(key).number();
    if (asked !== undefined) return asked;
    if (/^\d*$/.test(fallback)) return Number(fallback);
    throw new HakoError(
      "INVALID_ARGUMENT",
      `"${fallback}" is a name: give its number by securityContext.${key} in ${node.path}`,
    );
  };
  const gid = number("runAsGroup", imageGroup);
  const groups = [
    gid,
    ...shared
      .at("supplementalGroups")
      .items()
      .flatMap((item) => item.number() ?? []),
    ...(shared.at("fsGroup").number() === undefined ? [] : [shared.at("fsGroup").number() as number]),
  ];
  return { uid: number("runAsUser", imageUser), gid, groups: [...new Set(groups)] };
}

function readSysctls(pod: ManifestNode): Record<string, string> {
  const items = pod.at("securityContext").at("sysctls").items();
  return Object.fromEntries(items.map((item) => [item.at("name").text(), item.at("value").text()]));
}

function readMounts(node: ManifestNode, pod: ManifestNode) {
  const kinds = new Set<VolumeKind>();
  const mounts = node
    .at("volumeMounts")
    .items()
    .map((mount) => {
      const name = mount.at("name").text();
      const volume = pod
        .at("volumes")
        .items()
        .find((candidate) => candidate.at("name").text() === name);
      const member = volume?.keys().find((key) => key !== "name");
      const kind =
        member !== undefined && Object.hasOwn(volumeKinds, member) ? volumeKinds[member] : undefined;
      if (!volume || member === undefined) throw mount.at("name").wrong("a volume of the pod");
      if (kind === undefined)
        throw new HakoError("UNIMPLEMENTED", `Volumes of kind "${member}" are not known: ${volume.path}`);
      kinds.add(kind);
      const readOnly = mount.at("readOnly").flag() ?? false;
      return mountPolicy(
        mount
          .at("mountPath")
          .text()
          .replace(/(.)\/+$/, "$1"),
        kind,
        readOnly || FIXED.has(member),
      );
    });
  return { mounts, kinds };
}

/** Commands that the kubelet runs: probes and hooks. */
function readCommands(node: ManifestNode): string[][] {
  const probes = ["livenessProbe", "readinessProbe", "startupProbe"].map((name) => node.at(name));
  const hooks = ["postStart", "preStop"].map((name) => node.at("lifecycle").at(name));
  return [...probes, ...hooks]
    .map((place) => place.at("exec").at("command").strings())
    .filter((words) => words.length > 0);
}

/** The container that every pod has, which only waits. */
function pauseContainer(pod: ManifestNode): ContainerPolicy {
  return {
    name: "pause",
    args: ["/pause"],
    cwd: "/",
    env: [`PATH=${DEFAULT_PATH}`],
    user: { uid: PAUSE_USER, gid: PAUSE_USER, groups: [PAUSE_USER] },
    named_user: null,
    terminal: false,
    stdin: false,
    read_only_root: true,
    no_new_privileges: true,
    privileged: false,
    capabilities: adjustCapabilities([], []),
    sysctls: { ...POD_SYSCTLS, ...readSysctls(pod) },
    mounts: POD_MOUNTS,
    storages: [],
    exec_commands: [],
  };
}
