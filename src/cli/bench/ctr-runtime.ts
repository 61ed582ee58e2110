import { HakoError } from "#base/error.ts";
import { runCommand } from "./bench-command.ts";
import { type BenchContext, type BenchRuntime, lookupProgram, lookupRootfs } from "./bench-runtime.ts";
import { childrenOf, processesNamed, withDescendants } from "./process-tree.ts";

/** `ctr:io.containerd.runc.v2` and the like. */
export type CtrRuntime = `ctr:${string}`;

const NAMESPACE = "hako-bench";

/** A runtime of the containerd that runs on this host, through its own command line client. */
export async function openCtrRuntime(name: CtrRuntime, context: BenchContext): Promise<BenchRuntime> {
  const program = lookupProgram("ctr");
  const rootfs = lookupRootfs(name, context);
  const runtime = name.slice("ctr:".length);
  if (!/^[A-Za-z0-9._/-]+$/.test(runtime)) {
    throw new HakoError("INVALID_ARGUMENT", `"${runtime}" is not a name of a containerd runtime`);
  }
  const env = { PATH: process.env.PATH ?? "" };
  const { command, idleCommand } = context.image;
  const ctr = [program, "--namespace", NAMESPACE];
  const answer = await runCommand([...ctr, "version"], env);
  const run = (options: readonly string[], id: string, words: readonly string[]) => {
    return [...ctr, "run", ...options, "--runtime", runtime, "--rootfs", rootfs, id, ...words];
  };
  const before = new Set(shims());
  return {
    name,
    version: `containerd ${/Version:\s*(\S+)/.exec(answer)?.[1] ?? "?"}, ${runtime}`,
    env,
    startCommand: (id) => run(["--rm"], id, command),
    idleCommand: (id) => run(["--detach"], id, idleCommand),
    removeCommand: (id) => [...ctr, "task", "rm", "--force", id],
    execCommand: (id, words) => [...ctr, "task", "exec", "--exec-id", `${id}-work`, id, ...words],
    processes: () => withDescendants(shims().filter((pid) => !before.has(pid))),
    async [Symbol.asyncDispose]() {
      const listed = await runCommand([...ctr, "container", "ls", "--quiet"], env);
      const ids = listed.split("\n").filter((id) => id !== "");
      if (ids.length > 0) await runCommand([...ctr, "container", "rm", ...ids], env);
      await runCommand([...ctr, "namespace", "rm", NAMESPACE], env).catch(() => {});
    },
  };
}

/** containerd's shims; they are children of process 1, and so are monitors that leave them. */
function shims(): number[] {
  const candidates = new Set([...childrenOf(1), ...childrenOf(process.pid)]);
  return processesNamed("containerd-shim").filter((pid) => candidates.has(pid));
}
