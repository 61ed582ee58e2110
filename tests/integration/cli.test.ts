/** The executable's answers where no machine is needed: help, lists, and every mistake that comes before one. */
import { afterAll, describe, expect } from "bun:test";
import { chmodSync, chownSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { version } from "#base/version.ts";
import {
  HakoHost,
  hakoBinary,
  hakoTest,
  machineTest,
  type Outcome,
  type RunOptions,
} from "../support/hako-host.ts";
import { busyboxImage, ociLayout, sha256, writeFiles } from "../support/images.ts";
import { rootTest } from "../support/skip.ts";
import { makeTar } from "../support/tar.ts";

const host = new HakoHost();
afterAll(() => host[Symbol.dispose]());

/** The command failed with one line on stderr that holds `problem`, and left nothing behind. */
function expectFailure(outcome: Outcome, problem: string | RegExp, code = 125): void {
  expect(outcome.stderr).toMatch(problem);
  expect(outcome.stderr).toMatch(/^hako: .*\n$/);
  expect(outcome.stdout).toBe("");
  expect(outcome.code).toBe(code);
  expect(host.leftovers()).toEqual([]);
}

async function expectRunFailure(args: readonly string[], problem: string | RegExp, options: RunOptions = {}) {
  expectFailure(await host.run(["run", "--rm", ...args], options), problem);
}

describe("help", () => {
  hakoTest("comes without a command, with help and with --help", async () => {
    const overview = await host.run([]);
    expect(overview.code).toBe(0);
    expect(overview.stdout).toContain("Usage: hako COMMAND");
    expect((await host.run(["--help"])).stdout).toBe(overview.stdout);
    expect((await host.run(["help"])).stdout).toBe(overview.stdout);
    const run = await host.run(["run", "--help"]);
    expect(run.stdout).toContain("Usage: hako run [OPTIONS] IMAGE");
    expect((await host.run(["help", "run"])).stdout).toBe(run.stdout);
  });

  hakoTest("the version is printed plainly and as JSON", async () => {
    expect((await host.run(["version"])).stdout).toBe(`hako ${version}\n`);
    expect((await host.run(["--version"])).stdout).toBe(`hako ${version}\n`);
    expect(await host.json<object>(["version", "--json"])).toEqual({ version });
  });
});

describe("a wrong command line", () => {
  hakoTest("names the word and where to look", async () => {
    expectFailure(await host.run(["rnu"]), /Unknown command "rnu".*hako --help/);
    expectFailure(await host.run(["insepct"]), 'did you mean "inspect"');
    expectFailure(await host.run(["run", "--nmae", "x", "i"]), 'did you mean "--name"');
    expectFailure(await host.run(["run"]), "Too few words");
    expectFailure(await host.run(["run", "--net", "bridge", "i"]), "use none, tap, nat or netns:/PATH");
    expectFailure(await host.run(["ps", "x"]), 'Unexpected word "x"');
    expectFailure(await host.run(["kill", "-s", "NOPE", "x"]), 'Unknown signal "NOPE"');
    expectFailure(await host.run(["completion", "fish"]), "only bash");
  });

  hakoTest("memory that is too small, a bad name, a volume without a path", async () => {
    await expectRunFailure(["--memory", "100m", "oci:x"], /--memory 100m is too small: .* at least 128m/);
    await expectRunFailure(["--name", "a b", "oci:x"], 'Cannot use "a b" as container name');
    await expectRunFailure(["-v", "data:/x", "oci:x"], "named volumes do not exist");
    await expectRunFailure(["--cap-add", "FLY", await busyboxImage("rootfs")], 'Unknown capability "FLY"');
  });

  hakoTest("no such container", async () => {
    for (const command of [
      ["exec", "nope", "true"],
      ["logs", "nope"],
      ["kill", "nope"],
      ["rm", "nope"],
      ["inspect", "nope"],
    ]) {
      expectFailure(await host.run(command), 'No container is called "nope"');
    }
  });
});

describe("lists", () => {
  hakoTest("are empty where nothing runs", async () => {
    expect((await host.run(["ps", "-a"])).stdout).toMatch(/^CONTAINER ID {2,}IMAGE.*NAME\n$/);
    expect(await host.json<unknown[]>(["ps", "--json"])).toEqual([]);
    expect((await host.run(["ps", "-q"])).stdout).toBe("");
    expect(await host.json<unknown[]>(["stats", "--json"])).toEqual([]);
  });

  hakoTest("a reader that has gone away is no error", async () => {
    const script = 'set -o pipefail; "$0" help | true; echo $?';
    const child = Bun.spawn(["bash", "-c", script, hakoBinary], {
      env: host.env,
      stdout: "pipe",
      stderr: "pipe",
    });
    expect(await child.stderr.text()).toBe("");
    expect(await child.stdout.text()).toBe("0\n");
  });
});

describe("hako check and hako env", () => {
  interface Report {
    canRun: boolean;
    checks: { name: string; state: string; detail: string; needed: boolean }[];
  }

  hakoTest("say what there is in plain words", async () => {
    const { stdout, code } = await host.run(["check"]);
    for (const name of [
      "executable",
      "directories",
      "kvm",
      "qemu",
      "vsock",
      "tun",
      "cgroup",
      "memory",
      "disk",
    ]) {
      expect(stdout).toMatch(new RegExp(`^(ok|limited|missing) +${name} +\\S`, "m"));
    }
    expect([0, 1]).toContain(code);
    const report = await JSON.parse((await host.run(["check", "--json"])).stdout);
    expect(report.canRun).toBe(code === 0);
  });

  hakoTest("without QEMU the answer is no", async () => {
    using own = new HakoHost();
    own.configure('[hypervisor.qemu]\npath = "/nonexistent/qemu"');
    const { stdout, code } = await own.run(["check", "--json"]);
    const report: Report = JSON.parse(stdout);
    expect(code).toBe(1);
    expect(report.canRun).toBe(false);
    expect(report.checks.find(({ name }) => name === "qemu")).toMatchObject({
      state: "missing",
      needed: true,
      detail: expect.stringContaining("/nonexistent/qemu"),
    });
  });

  hakoTest("the environment shows the configuration in use", async () => {
    using own = new HakoHost();
    own.configure("[hypervisor.qemu]\ndefault_memory = 333");
    const found = await own.json<{
      version: string;
      runDir: string;
      config: { hypervisor: { qemu: { defaultMemory: number } } };
    }>(["env", "--json"]);
    expect(found).toMatchObject({
      version,
      runDir: own.runDir,
      config: { hypervisor: { qemu: { defaultMemory: 333 } } },
    });
    expect((await own.run(["env"])).stdout).toMatch(/^config\.hypervisor\.qemu\.defaultMemory +333$/m);
  });
});

describe("images that cannot be run", () => {
  hakoTest("unknown kind, missing, not an image", async () => {
    await expectRunFailure(["busybox"], /Cannot read image reference "busybox".*skopeo/);
    await expectRunFailure(["oci:/nonexistent"], "/nonexistent");
    await expectRunFailure([`rootfs:${host.dir}/nothing`], "nothing");
    writeFileSync(join(host.dir, "noise.tar"), crypto.getRandomValues(new Uint8Array(4096)));
    await expectRunFailure(["oci-archive:noise.tar"], "noise.tar");
    await expectRunFailure(["docker-archive:noise.tar"], "noise.tar");
  });

  hakoTest("a layer that is not what its digest says", async () => {
    const tar = makeTar([{ name: "a", data: "a" }]);
    const files = ociLayout({ layers: [{ tar }], config: { Cmd: ["/a"] } });
    const damaged = Buffer.from(tar);
    damaged[512] = 0x62;
    files.set(`blobs/sha256/${sha256(tar)}`, damaged);
    writeFiles(join(host.dir, "damaged"), files);
    await expectRunFailure(["oci:damaged"], /digest/);
  });
});

describe("a host that cannot run it", () => {
  machineTest("no QEMU", async () => {
    using own = new HakoHost();
    own.configure('[hypervisor.qemu]\npath = "/nonexistent/qemu"');
    const outcome = await own.run(["run", "--rm", await busyboxImage("oci"), "true"]);
    expect(outcome).toMatchObject({ code: 125, stdout: "" });
    expect(outcome.stderr).toMatch(
      /^hako: Cannot run virtual machines on this host: .*\/nonexistent\/qemu.*\n$/,
    );
    expect(own.leftovers()).toEqual([]);
  });

  machineTest("no guest kernel", async () => {
    using own = new HakoHost();
    own.configure('[hypervisor.qemu]\nkernel = "/nonexistent/vmlinux"');
    const outcome = await own.run(["run", "--rm", await busyboxImage("oci"), "true"]);
    expect(outcome).toMatchObject({ code: 125, stdout: "" });
    expect(outcome.stderr).toMatch(/^hako: Cannot boot the guest kernel "\/nonexistent\/vmlinux".*\n$/);
    expect(own.leftovers()).toEqual([]);
  });

  hakoTest("a mistake in the configuration", async () => {
    using own = new HakoHost();
    own.configure("[hypervisor.qemu]\ndefault_memory = 1");
    const outcome = await own.run(["run", "--rm", "oci:x"]);
    expect(outcome.stderr).toMatch(
      /^hako: Configuration ".*configuration.toml", line 2, key "hypervisor.qemu.default_memory": expected .* from 128 .*\n$/,
    );
    expect(outcome.code).toBe(125);
  });

  rootTest("somebody who is not root", async () => {
    const prefix = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    using own = new HakoHost();
    chmodSync(own.dir, 0o755);
    mkdirSync(own.runDir, { mode: 0o700 });
    const outcome = await own.run(["run", "--rm", await busyboxImage("oci"), "true"], { prefix, cwd: "/" });
    expect(outcome.stderr).toMatch(/^hako: .*run hako as root.*\n$/);
    expect(outcome.code).toBe(125);
  });

  rootTest("somebody who may not use /dev/kvm", async () => {
    const prefix = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    using own = new HakoHost();
    own.stateDir = join(own.dir, "state");
    for (const dir of [own.runDir, own.stateDir]) {
      mkdirSync(dir, { recursive: true });
      chownSync(dir, 65534, 65534);
    }
    chownSync(own.dir, 65534, 65534);
    const image = join(own.dir, "image");
    mkdirSync(image);
    const outcome = await own.run(["run", "--rm", `rootfs:${image}`, "true"], { prefix, cwd: "/" });
    expect(outcome.stderr).toMatch(/^hako: .*\/dev\/kvm" is there, but this user may not open it.*\n$/);
    expect(outcome.code).toBe(125);
    expect(own.leftovers()).toEqual([]);
  });

  rootTest("a full disk while an image is prepared", async () => {
    using own = new HakoHost();
    own.stateDir = mkdtempSync(join(tmpdir(), "hk-full-"));
    expect(Bun.spawnSync(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", own.stateDir]).exitCode).toBe(
      0,
    );
    try {
      const outcome = await own.run(["run", "--rm", await busyboxImage("oci"), "true"]);
      expect(outcome.stderr).toMatch(/^hako: .*(disk is full|No space left).*\n$/i);
      expect(outcome.code).toBe(125);
      expect(own.leftovers()).toEqual([]);
      expect(readdirSync(own.stateDir).flatMap((name) => readdirSync(join(own.stateDir, name)))).toEqual([]);
    } finally {
      Bun.spawnSync(["umount", own.stateDir]);
      rmSync(own.stateDir, { recursive: true });
    }
  });
});
