/** Sandboxes cloned from a template, with the built-in monitor: each is a machine of its own. */
import { afterAll, expect } from "bun:test";
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { HakoHost, machineTest } from "../../support/hako-host.ts";
import { busyboxImage } from "../../support/images.ts";

const TIMEOUT_MS = 280_000;

const host = new HakoHost();
host.stateDir = join(host.dir, "state");
host.configure("[agent.kata]\nreconnect_timeout_ms = 120000\ncreate_container_timeout = 120\n");
afterAll(() => host[Symbol.dispose]());

interface Template {
  readonly key: string;
  readonly dir: string;
  readonly driver: string;
  readonly diskBytes: number;
  readonly memoryMib: number;
}

interface Timing {
  readonly phases: readonly { readonly name: string }[];
}

const templates = () => host.json<Template[]>(["factory", "status", "--json"]);

async function run(script: string, ...options: string[]) {
  const image = await busyboxImage("oci");
  const args = ["run", "--rm", "--timing=json", ...options, image, "sh", "-c", script];
  const { code, stdout, stderr } = await host.run(args);
  expect({ code, stderr }).toEqual({ code: 0, stderr: expect.stringContaining('"phases"') });
  const timing = JSON.parse(stderr.trim().split("\n").at(-1) ?? "") as Timing;
  return { lines: stdout.trimEnd().split("\n"), stderr, phases: timing.phases.map(({ name }) => name) };
}

machineTest(
  "the first run makes the template by itself: complete, its owner's alone, mostly holes, no sandbox left of it",
  async () => {
    const { lines, phases } = await run("echo hi");
    expect(lines).toEqual(["hi"]);
    expect(phases).toContain("template");
    expect(phases).toContain("own identity");
    const [template, ...others] = await templates();
    expect(others).toEqual([]);
    expect(template).toMatchObject({ driver: "builtin", memoryMib: 256 });
    const dir = template?.dir ?? "";
    expect(statSync(dir).mode & 0o777).toBe(0o700);
    for (const name of readdirSync(dir)) expect(statSync(join(dir, name)).mode & 0o777).toBe(0o600);
    expect(template?.diskBytes).toBeLessThan(128 * 2 ** 20);
    expect(host.leftovers()).toEqual([]);
  },
  TIMEOUT_MS,
);

machineTest(
  "clones side by side have nothing in common that should be theirs alone, and the host's time",
  async () => {
    const script = `cat /proc/sys/kernel/random/boot_id /proc/sys/kernel/random/uuid
      head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \\n'; echo; hostname; date +%s`;
    const before = Math.floor(Date.now() / 1000);
    const clones = await Promise.all([run(script), run(script), run(script)]);
    const after = Math.ceil(Date.now() / 1000);
    for (let line = 0; line < 4; line++) {
      expect(new Set(clones.map(({ lines }) => lines[line])).size).toBe(3);
    }
    for (const { lines, phases } of clones) {
      expect(phases).not.toContain("template");
      expect(phases).not.toContain("kernel");
      expect(lines[2]).toMatch(/^[0-9a-f]{32}$/);
      expect(Number(lines[4])).toBeGreaterThanOrEqual(before - 1);
      expect(Number(lines[4])).toBeLessThanOrEqual(after + 1);
    }
    expect(host.leftovers()).toEqual([]);
  },
  TIMEOUT_MS,
);

machineTest(
  "--no-template boots; a damaged template is told, removed, and the machine boots",
  async () => {
    expect((await run("true", "--no-template")).phases).toContain("kernel");
    const [template] = await templates();
    const state = join(template?.dir ?? "", "state");
    const bytes = readFileSync(state);
    bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] ?? 0) ^ 0xff;
    writeFileSync(state, bytes);
    const { lines, stderr, phases } = await run("echo still");
    expect(lines).toEqual(["still"]);
    expect(phases).toContain("kernel");
    expect(stderr).toContain("a template is of no use, the machine boots");
    expect(existsSync(template?.dir ?? "")).toBe(false);
    expect(host.leftovers()).toEqual([]);
  },
  TIMEOUT_MS,
);
