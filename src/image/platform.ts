import type { Platform } from "#oci/image-spec.ts";

/** Go's names for what Node.js calls the architecture. */
const architecture = process.arch === "x64" ? "amd64" : process.arch;

/** `linux/amd64`. */
export const wantedPlatform: string = `linux/${architecture}`;

/** True when the guest can run programs of this platform; variants beyond the base one are not assumed. */
export function isWantedPlatform(platform: Platform): boolean {
  const base = platform.variant === undefined || platform.variant === "" || platform.variant === "v1";
  const variant = base || (architecture === "arm64" && platform.variant === "v8");
  return platform.os === "linux" && platform.architecture === architecture && variant;
}
