/** Policies that hako policy generate writes, before the requests of hako's own runtime. */
import { afterAll, beforeAll, expect } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DEFAULT_CONFIG } from "#config/config.ts";
import type { ContainerSpec } from "#runtime/container.ts";
import type { RuntimeHandler } from "#runtime/handler.ts";
import { lookupHandler } from "#runtime/registry.ts";
import { StateStore } from "#runtime/state-store.ts";
import { Timeline } from "#runtime/timeline.ts";
import { agentProcessMissing, failure } from "../support/agent-process.ts";
import { embedBuilt } from "../support/embed-built.ts";
import { busyboxImage } from "../support/images.ts";
import { loopMountMissing } from "../support/loop-mount.ts";
import { testIf } from "../support/skip.ts";

const missing = agentProcessMissing() ?? loopMountMissing();
const policyTest = testIf(missing === undefined, missing ?? "");
const checkout = join(import.meta.dir, "../..");
const base = mkdtempSync(join(tmpdir(), "hako-generate-"));
afterAll(() => rmSync(base, { recursive: true, force: true }));

const paths = {
  runDir: join(base, "run"),
  stateDir: join(base, "state"),
  configFile: "",
  configDialect: "hako" as const,
};
const store = new StateStore(paths.runDir);
const volume = join(base, "volume");
let handler: RuntimeHandler;
let image: string;

beforeAll(async () => {
  if (missing !== undefined) return;
  embedBuilt(["seccomp-default.json"]);
  handler = await lookupHandler("linux_container", {
    paths,
    config: DEFAULT_CONFIG,
    store,
    timeline: new Timeline(),
  });
  image = await busyboxImage("rootfs");
  mkdirSync(volume);
  writeFileSync(join(volume, "file"), "content");
});

/** The policy as the command prints it. */
async function generate(...words: string[]): Promise<string> {
  const child = Bun.spawn([process.execPath, join(checkout, "src/main.ts"), "policy", "generate", ...words], {
    env: { ...process.env, HAKO_STATE_DIR: paths.stateDir },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const text = await child.stdout.text();
  expect(await child.exited).toBe(0);
  return text;
}

let containers = 0;

function containerSpec(command: string[], changes: Partial<ContainerSpec> = {}): ContainerSpec {
  return {
    id: `c${++containers}`,
    hostname: "generated",
    image,
    process: { env: ["A=1"], command, terminal: false, capAdd: [], capDrop: [], noNewPrivileges: false },
    volumes: [{ hostPath: volume, guestPath: "/data", readOnly: true }],
    readOnlyRoot: false,
    seccomp: { kind: "default" },
    stdin: false,
    ...changes,
  };
}

policyTest(
  "allow the container that they were written for and no other",
  async () => {
    const command = ["sh", "-c", "echo $A; cat /data/file; exit 4"];
    await using sandbox = await handler.createSandbox({
      id: "generated",
      name: "generated",
      hostname: "generated",
      network: "none",
      detached: false,
      autoRemove: true,
      timing: false,
    });
    await sandbox.start();
    const options = [
      "--allow-output",
      "--run-dir",
      join(sandbox.dir, "agent"),
      "-e",
      "A=1",
      "-v",
      "/data:ro",
    ];
    const policy = await generate(...options, image, "--", ...command);
    await sandbox.lookupAgent().agent.setPolicy({ policy });

    const run = async (spec: ContainerSpec) => {
      const container = await sandbox.addContainer(spec);
      await container.create();
      await container.start();
      return container;
    };
    const container = await run(containerSpec(command));
    expect(Buffer.from(await container.process.readStdout(100)).toString()).toContain("1\n");
    expect(await container.wait()).toBe(4);

    const good = containerSpec(command).process;
    const denied: [what: string, spec: ContainerSpec][] = [
      ["another command", containerSpec(["sh", "-c", "id"])],
      ["another variable", containerSpec(command, { process: { ...good, env: ["A=2"] } })],
      ["a capability", containerSpec(command, { process: { ...good, capAdd: ["SYS_ADMIN"] } })],
      [
        "a volume elsewhere",
        containerSpec(command, { volumes: [{ hostPath: volume, guestPath: "/bin", readOnly: true }] }),
      ],
      ["another user", containerSpec(command, { user: "1000" })],
    ];
    for (const [what, spec] of denied) {
      const { code, message } = await failure(run(spec));
      expect({ what, code }).toEqual({ what, code: "PERMISSION_DENIED" });
      expect(message).toContain("CreateContainerRequest is blocked by policy");
    }
    const exec = { id: "e", args: ["id"], env: [], terminal: false, stdin: false };
    const long = await failure(container.exec(exec));
    expect(long.code).not.toBe("OK");
  },
  60_000,
);

policyTest("are printed for manifests, and checked", async () => {
  const manifest = join(checkout, "tests/fixtures/policy/pod.yaml");
  const text = await generate("--image", `registry.example/web:2=${image}`, manifest);
  const file = join(base, "pod.rego");
  writeFileSync(file, text);
  const check = Bun.spawn(
    [process.execPath, join(checkout, "src/main.ts"), "policy", "check", "--json", file],
    {
      stdio: ["ignore", "pipe", "inherit"],
    },
  );
  const report = JSON.parse(await check.stdout.text());
  expect(report.ignoresRefusals).toBe(false);
  expect(report.requests).toContain("CreateContainerRequest");
  const request = join(base, "request.json");
  writeFileSync(request, JSON.stringify({ container_id: "x" }));
  const words = ["policy", "check", file, "--request", "ExecProcessRequest", "--input", request];
  const denied = Bun.spawn([process.execPath, join(checkout, "src/main.ts"), ...words], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  expect(await denied.stdout.text()).toContain("ExecProcessRequest: denied: rule");
  expect(await denied.exited).toBe(1);
});
