/** What containerd tells a shim by its environment. */
export interface ShimEnvironment {
  /** Unix socket of containerd's ttrpc services; events go there. Undefined: nobody wants them. */
  readonly ttrpcAddress: string | undefined;
  /** The newest start protocol that this containerd knows; 2 where it does not say. */
  readonly maxShimVersion: number;
}

export function readEnvironment(
  env: Readonly<Record<string, string | undefined>> = process.env,
): ShimEnvironment {
  const version = Number(env.MAX_SHIM_VERSION ?? "2");
  return {
    ttrpcAddress: env.TTRPC_ADDRESS || undefined,
    maxShimVersion: Number.isInteger(version) && version > 0 ? version : 2,
  };
}

/** What a child of ours may know; BUN_* and NODE_* could make it run other code, the rest is none of its business. */
const PASSED_ON =
  /^(PATH|LANG|LC_[A-Z]+|TMPDIR|TZ|NAMESPACE|TTRPC_ADDRESS|GRPC_ADDRESS|MAX_SHIM_VERSION|SCHED_CORE|HAKO_[A-Z_]+)$/;

export function childEnvironment(
  env: Readonly<Record<string, string | undefined>> = process.env,
): Record<string, string> {
  const kept = Object.entries(env).filter(
    (entry): entry is [string, string] => entry[1] !== undefined && PASSED_ON.test(entry[0]),
  );
  return Object.fromEntries(kept);
}
