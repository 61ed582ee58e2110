import { readFileSync } from "node:fs";
import { lookupEmbedded } from "#base/embedded.ts";
import { HakoError } from "#base/error.ts";
import { adjustCapabilities } from "#oci/capability.ts";
import type { Seccomp, Spec } from "#oci/runtime-spec.ts";
import { parseSeccompProfile } from "#oci/seccomp-profile.ts";
import { buildSpec } from "#oci/spec-builder.ts";
import type { ContainerSpec } from "#runtime/container.ts";
import type { ContainerResources } from "./container-resources.ts";

/** Of the guest kernel, for profiles that ask. */
const GUEST_KERNEL = "6.1";
const MAX_PROFILE_BYTES = 1024 * 1024;

/** The OCI configuration of a container as the agent gets it. `containerMemory`: bytes that it may use. */
export function buildContainerSpec(
  request: ContainerSpec,
  resources: ContainerResources,
  containerMemory: number,
): Spec {
  const seccomp = loadSeccomp(request);
  return buildSpec(resources.image.config, {
    ...request.process,
    id: request.id,
    hostname: request.hostname,
    rootPath: resources.rootPath,
    readOnlyRoot: request.readOnlyRoot,
    mounts: resources.mounts,
    memoryLimit: Math.min(request.memoryLimit ?? containerMemory, containerMemory),
    ...(request.cpus === undefined ? {} : { cpus: request.cpus }),
    ...(seccomp && { seccomp }),
  });
}

function loadSeccomp({ seccomp, process }: ContainerSpec): Seccomp | undefined {
  if (seccomp.kind === "unconfined") return undefined;
  const capabilities = adjustCapabilities(process.capAdd, process.capDrop);
  const context = { capabilities, kernel: GUEST_KERNEL };
  if (seccomp.kind === "file") {
    return parseSeccompProfile(readProfile(seccomp.path), `"${seccomp.path}"`, context);
  }
  const { path } = lookupEmbedded("seccomp-default.json");
  return parseSeccompProfile(readFileSync(path, "utf8"), "of hako", context);
}

function readProfile(path: string): string {
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
  } catch (cause) {
    throw new HakoError("INVALID_ARGUMENT", `Cannot read seccomp profile "${path}"`, { cause });
  }
  if (bytes.length > MAX_PROFILE_BYTES) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Seccomp profile "${path}" is larger than ${MAX_PROFILE_BYTES} bytes`,
    );
  }
  return bytes.toString("utf8");
}
