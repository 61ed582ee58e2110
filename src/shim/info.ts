import { version } from "#base/version.ts";
import { RuntimeInfo } from "#proto/containerd/types.ts";

/** What `-info` prints: containerd.types.RuntimeInfo. */
export function runtimeInfo(name: string): Uint8Array {
  return RuntimeInfo.encode(RuntimeInfo.fromPartial({ name, version: { version } })).finish();
}

/** `io.containerd.hako.v2` for `containerd-shim-hako-v2`. */
export function runtimeName(program: string): string {
  const [, name = "hako", number = "2"] = /^containerd-shim-([a-z0-9]+)-v(\d+)$/.exec(program) ?? [];
  return `io.containerd.${name}.v${number}`;
}
