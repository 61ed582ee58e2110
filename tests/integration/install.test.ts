/** hako install, with containerd as the judge of what it writes. */
import { afterAll, expect } from "bun:test";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { containerdTest } from "../support/containerd-host.ts";
import { HakoHost, hakoBinary, hakoTest } from "../support/hako-host.ts";

const host = new HakoHost();
const bin = join(host.dir, "bin");
const config = join(host.dir, "config.toml");
const given = 'version = 2\n[plugins."io.containerd.grpc.v1.cri"]\n  sandbox_image = "example/pause:1"\n';
afterAll(() => host[Symbol.dispose]());

const install = (...options: string[]) => host.run(["install", "--directory", bin, ...options]);

containerdTest("links the shim and teaches containerd about it, once, and takes it back", async () => {
  mkdirSync(bin);
  writeFileSync(config, given, { mode: 0o640 });
  const planned = await install("--containerd", config, "--dry-run");
  expect(planned.stdout).toContain("+ [plugins.");
  expect([readFileSync(config, "utf8"), readdirSync(bin)]).toEqual([given, []]);

  const first = await install("--containerd", config, "--kata");
  expect({ code: first.code, stderr: first.stderr }).toEqual({ code: 0, stderr: "" });
  expect(first.stdout).toContain('+   runtime_type = "io.containerd.hako.v2"');
  for (const name of ["hako", "kata"]) {
    expect(readlinkSync(join(bin, `containerd-shim-${name}-v2`))).toBe(realpathSync(hakoBinary));
  }
  expect(statSync(config).mode & 0o777).toBe(0o640);
  const backups = readdirSync(host.dir).filter((name) => name.endsWith(".bak"));
  expect(backups.map((name) => readFileSync(join(host.dir, name), "utf8"))).toEqual([given]);
  const dump = Bun.spawnSync(["containerd", "-c", config, "config", "dump"]).stdout.toString();
  expect(dump).toMatch(/runtimes\.hako\][\s\S]*?runtime_type = "io.containerd.hako.v2"/);
  expect(dump).toContain('sandbox_image = "example/pause:1"');

  const second = await install("--containerd", config, "--kata");
  expect(second.stdout).toContain("unchanged");
  expect(second.stdout).toContain("containerd-shim-hako-v2: kept");
  await install("--containerd", config, "--kata", "--uninstall");
  expect([readFileSync(config, "utf8"), readdirSync(bin)]).toEqual([given, []]);
});

hakoTest("touches nothing that is not its own", async () => {
  const other = join(host.dir, "other");
  mkdirSync(other);
  writeFileSync(join(other, "containerd-shim-kata-v2"), "Kata's own");
  const refused = await host.run(["install", "--directory", other, "--kata"]);
  expect(refused.code).not.toBe(0);
  expect(refused.stderr).toMatch(/containerd-shim-kata-v2" is there and is not hako's/);
  expect((await host.run(["install", "--directory", other, "--uninstall"])).code).toBe(0);
  expect(readFileSync(join(other, "containerd-shim-kata-v2"), "utf8")).toBe("Kata's own");
  expect(existsSync(join(other, "containerd-shim-hako-v2"))).toBe(false);
  const broken = join(host.dir, "broken.toml");
  writeFileSync(broken, "version = ");
  const wrong = await host.run(["install", "--directory", other, "--containerd", broken]);
  expect(wrong.stderr).toMatch(/broken.toml", line 1/);
  expect(readFileSync(broken, "utf8")).toBe("version = ");
});
