import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { runCommand } from "./bench-command.ts";
import { type BenchContext, type BenchRuntime, lookupProgram, lookupRootfs } from "./bench-runtime.ts";
import { withDescendants } from "./process-tree.ts";

/** runc or crun on bundles with its own default specification, without a terminal, its root read-only. */
export async function openOciRuntime(name: "runc" | "crun", context: BenchContext): Promise<BenchRuntime> {
  const program = lookupProgram(name);
  const rootfs = lookupRootfs(name, context);
  const root = join(context.dir, `${name}-state`);
  const env = { PATH: process.env.PATH ?? "" };
  const { command, idleCommand } = context.image;
  const bundle = await makeBundle(program, join(context.dir, `${name}-bundle`), rootfs, command);
  const idleBundle = await makeBundle(program, join(context.dir, `${name}-idle`), rootfs, idleCommand);
  const pidFiles = new Map<string, string>();
  const version = (await runCommand([program, "--version"], env)).split("\n")[0] ?? name;
  return {
    name,
    version,
    env,
    startCommand: (id) => [program, "--root", root, "run", "--bundle", bundle, id],
    idleCommand: (id) => {
      const pidFile = join(context.dir, `${name}-${id}.pid`);
      pidFiles.set(id, pidFile);
      return [program, "--root", root, "run", "--detach", "--pid-file", pidFile, "--bundle", idleBundle, id];
    },
    removeCommand: (id) => {
      pidFiles.delete(id);
      return [program, "--root", root, "delete", "--force", id];
    },
    execCommand: (id, words) => [program, "--root", root, "exec", id, ...words],
    processes: () =>
      withDescendants([...pidFiles.values()].map((file) => Number(readFileSync(file, "utf8")))),
    async [Symbol.asyncDispose]() {},
  };
}

async function makeBundle(
  program: string,
  bundle: string,
  rootfs: string,
  args: readonly string[],
): Promise<string> {
  mkdirSync(bundle);
  await runCommand([program, "spec", "--bundle", bundle], { PATH: process.env.PATH ?? "" }, bundle);
  const file = join(bundle, "config.json");
  const spec = JSON.parse(readFileSync(file, "utf8"));
  spec.process.args = args;
  spec.process.terminal = false;
  spec.root = { path: rootfs, readonly: true };
  writeFileSync(file, JSON.stringify(spec));
  return bundle;
}
