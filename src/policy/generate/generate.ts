import { HakoError } from "#base/error.ts";
import { adjustCapabilities } from "#oci/capability.ts";
import { DEFAULT_PATH } from "#oci/default-container.ts";
import type { ImageConfig } from "#oci/image-spec.ts";
import { mergeEnv } from "#oci/spec-builder.ts";
import { parseManifest } from "./manifest.ts";
import { type ImageLookup, readPod } from "./pod.ts";
import { formatPodPolicy, type PodPolicyOptions } from "./pod-policy.ts";
import { mountPolicy, OWN_MOUNTS, storagePolicies } from "./volume-policy.ts";

export interface ManifestPolicyOptions extends PodPolicyOptions {
  /** "kind/name" or the name of the workload; needed when the file has several. */
  readonly pod?: string;
}

/** The policy for the pods of a workload in a Kubernetes manifest. */
export function generateFromManifest(
  text: string,
  findImage: ImageLookup,
  options: ManifestPolicyOptions,
): string {
  const manifest = parseManifest(text);
  const names = [...manifest.pods.keys()];
  const wanted = options.pod;
  const matching = names.filter(
    (name) => wanted === undefined || name === wanted || name.endsWith(`/${wanted}`),
  );
  const [only] = matching;
  const pod = only === undefined ? undefined : manifest.pods.get(only);
  if (!pod || matching.length > 1) {
    const found = names.length === 0 ? "it has no workload" : `choose one by --pod: ${names.join(", ")}`;
    throw new HakoError("INVALID_ARGUMENT", `Cannot tell which pod of the manifest is meant: ${found}`);
  }
  const { containers, envPatterns } = readPod(pod, manifest, findImage);
  return formatPodPolicy(containers, envPatterns, options);
}

export interface ImagePolicyOptions extends PodPolicyOptions {
  /** In the place of the image's command. */
  readonly command: readonly string[];
  /** `NAME=value` */
  readonly env: readonly string[];
  /** Paths in the container at which volumes may be. */
  readonly volumes: readonly { readonly guestPath: string; readonly readOnly: boolean }[];
  readonly terminal: boolean;
  readonly stdin: boolean;
}

/** The policy for one container of an image, as `hako run` makes it. */
export function generateFromImage(config: ImageConfig, options: ImagePolicyOptions): string {
  const { command, volumes } = options;
  const [uid = "", gid = ""] = (config.User ?? "").split(":");
  const numbers = /^\d*$/.test(uid) && /^\d*$/.test(gid);
  const container = {
    name: "container",
    args: [...(config.Entrypoint ?? []), ...(command.length > 0 ? command : (config.Cmd ?? []))],
    cwd: config.WorkingDir || "/",
    env: mergeEnv([`PATH=${DEFAULT_PATH}`], config.Env ?? [], options.env),
    user: numbers ? { uid: Number(uid), gid: Number(gid), groups: [] } : { uid: -1, gid: -1, groups: [] },
    named_user: `${uid}:${gid}`,
    terminal: options.terminal,
    stdin: options.stdin,
    read_only_root: false,
    no_new_privileges: false,
    privileged: false,
    capabilities: adjustCapabilities([], []),
    sysctls: {},
    mounts: [
      ...volumes.map(({ guestPath, readOnly }) => mountPolicy(guestPath, "host", readOnly)),
      ...OWN_MOUNTS.filter(({ destination }) => !volumes.some(({ guestPath }) => guestPath === destination)),
    ],
    storages: storagePolicies(new Set(volumes.length > 0 ? ["host"] : [])),
    exec_commands: [],
  };
  return formatPodPolicy([container], [], options);
}
