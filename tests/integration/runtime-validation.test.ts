import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmodSync, copyFileSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { toProtoSpec } from "#agent-client/spec.ts";
import type { Spec } from "#oci/runtime-spec.ts";
import { AgentProcess, agentProcessMissing } from "../support/agent-process.ts";
import { compileStatic, TemporaryDirectory } from "../support/container.ts";
import { plainSpec, type RuntimeCase, type RuntimeName } from "../support/runtime-case.ts";
import { runtimeCases } from "../support/runtime-table.ts";
import { testIf } from "../support/skip.ts";

const missing = agentProcessMissing();
const tools = { runc: Bun.which("runc"), crun: Bun.which("crun") } as const;

let directory: TemporaryDirectory;
let box: AgentProcess | undefined;
let count = 0;

beforeAll(async () => {
  if (missing !== undefined) return;
  directory = new TemporaryDirectory();
  // Root of a user namespace is an ordinary user here.
  chmodSync(directory.path, 0o755);
  compileStatic("tests/fixtures/runtime-check.c", join(directory.path, "check"));
  box = await AgentProcess.start();
});

afterAll(async () => {
  await box?.[Symbol.asyncDispose]();
  directory?.[Symbol.dispose]();
});

/** A bundle of the case's own: its root has the program, mount points, and something to hide. */
function makeBundle(entry: RuntimeCase): { bundle: string; spec: Spec } {
  const bundle = join(directory.path, `b${++count}`);
  const rootfs = join(bundle, "rootfs");
  for (const name of ["proc", "dev", "sys", "tmp", "hidden", "t", "in"])
    mkdirSync(join(rootfs, name), { recursive: true });
  mkdirSync(join(bundle, "data"));
  writeFileSync(join(bundle, "data/file"), "content\n");
  writeFileSync(join(rootfs, "hidden/file"), "secret\n");
  copyFileSync(join(directory.path, "check"), join(rootfs, "check"));
  const spec = plainSpec();
  spec.process.args = ["/check", ...entry.checks];
  entry.change(spec, rootfs);
  return { bundle, spec };
}

type Outcome = { readonly code: number; readonly output: string };

async function runByAgent(bundle: string, spec: Spec): Promise<Outcome> {
  if (!box) throw new Error("There is no agent");
  const id = `v${count}`;
  const path = join(box.runDirectory, id, "rootfs");
  await box.agent.createContainer({
    containerId: id,
    storages: [{ driver: "bind", source: join(bundle, "rootfs"), mountPoint: path, options: ["rbind"] }],
    OCI: toProtoSpec({ ...spec, root: { ...spec.root, path } }),
  });
  await box.agent.startContainer({ containerId: id });
  const { stdout, stderr, code } = await box.collect(id);
  await box.agent.removeContainer({ containerId: id });
  return { code, output: `${stdout}${stderr}` };
}

/**
 * Another runtime sees a unified cgroup hierarchy, in a mount namespace of its own; crun manages no cgroup, because
 * it wants a larger memlock limit for that than a machine need give.
 */
async function runByTool(name: "runc" | "crun", bundle: string, spec: Spec): Promise<Outcome> {
  writeFileSync(join(bundle, "config.json"), JSON.stringify(spec));
  const options = name === "crun" ? ["--cgroup-manager=disabled"] : [];
  const command = [
    tools[name] ?? name,
    ...options,
    "--root",
    join(bundle, "state"),
    "run",
    "--bundle",
    bundle,
  ];
  const script =
    'umount -l /sys/fs/cgroup/unified 2>/dev/null; mount -t cgroup2 none /sys/fs/cgroup && exec "$@"';
  const child = Bun.spawn(
    ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", ...command, `v${count}`],
    { stdin: "ignore", stdout: "pipe", stderr: "pipe" },
  );
  const [output, errors] = await Promise.all([child.stdout.text(), child.stderr.text()]);
  return { code: await child.exited, output: `${output}${errors}` };
}

async function runCase(runtime: RuntimeName, entry: RuntimeCase): Promise<Outcome> {
  const { bundle, spec } = makeBundle(entry);
  const outcome =
    runtime === "hako" ? await runByAgent(bundle, spec) : await runByTool(runtime, bundle, spec);
  rmSync(bundle, { recursive: true, force: true });
  return outcome;
}

for (const runtime of ["hako", "runc", "crun"] as const) {
  const toolMissing = runtime !== "hako" && !tools[runtime] ? `needs ${runtime}` : undefined;
  const reason = missing ?? toolMissing;
  const runtimeTest = testIf(reason === undefined, reason ?? "");
  describe(`a container as the OCI specification states it, by ${runtime}`, () => {
    for (const entry of runtimeCases.filter(({ without }) => without?.[runtime] === undefined)) {
      runtimeTest(entry.name, async () => {
        expect(await runCase(runtime, entry)).toEqual({ code: 0, output: "" });
      });
    }
  });
}

test("whatever a runtime of today lacks, hako does not", () => {
  expect(runtimeCases.filter(({ without }) => without?.hako !== undefined)).toEqual([]);
  expect(runtimeCases.length).toBeGreaterThan(40);
});
