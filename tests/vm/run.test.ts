/** `hako run` in the foreground: what a container is given, what comes out of it, what is left behind. */
import { afterAll, afterEach, describe, expect } from "bun:test";
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { networkInterfaces } from "node:os";
import { join } from "node:path";
import { HakoHost, hakoBinary, MACHINE_TIMEOUT_MS, machineTest } from "../support/hako-host.ts";
import { busyboxImage, type ImageKind } from "../support/images.ts";
import { debianImage, debianMissing } from "../support/real-images.ts";
import { testIf } from "../support/skip.ts";

const host = new HakoHost();
afterAll(() => host[Symbol.dispose]());
afterEach(() => expect(host.leftovers()).toEqual([]));

async function run(options: readonly string[], command: readonly string[], stdin?: Uint8Array | string) {
  const image = await busyboxImage("oci");
  return host.run(["run", "--rm", ...options, image, ...command], stdin === undefined ? {} : { stdin });
}

/** The lines that a shell script prints in a container that is run with `options`. */
async function lines(options: readonly string[], script: string): Promise<string[]> {
  const { stdout, stderr, code } = await run(options, ["sh", "-c", script]);
  expect({ stderr, code }).toEqual({ stderr: "", code: 0 });
  return stdout.trimEnd().split("\n");
}

describe("a container", () => {
  machineTest(
    "has what image and options say, and is isolated",
    async () => {
      const options = [
        "-e",
        "A=b c",
        "-w",
        "/tmp",
        "-u",
        "user",
        "--hostname",
        "box",
        "--cpus",
        "1.5",
        "--memory",
        "200m",
      ];
      const script = `id -un; id -u; pwd; echo "$A"; echo "$IMAGE"; echo "$HOME"; hostname; cat /etc/hostname; nproc
        cat /sys/fs/cgroup/cpu.max; cat /proc/1/comm; ls /proc | grep -c '^[0-9]'; grep -c box /etc/hosts
        cat /etc/motd; ls /etc/removed-by-layer-2 2>/dev/null; ls /sys/class/net | grep -v dummy; grep Seccomp: /proc/self/status`;
      const [
        user,
        uid,
        cwd,
        a,
        image,
        home,
        hostname,
        etcHostname,
        cpus,
        cpuMax,
        init,
        processes,
        hosts,
        motd,
        ...rest
      ] = await lines(options, script);
      expect([user, uid, cwd, a, image, home]).toEqual([
        "user",
        "1000",
        "/tmp",
        "b c",
        "busybox",
        "/home/user",
      ]);
      expect([hostname, etcHostname, cpus, cpuMax]).toEqual(["box", "box", "2", "150000 100000"]);
      expect([init, hosts, motd]).toEqual(["sh", "1", "upper"]);
      expect(Number(processes)).toBeLessThan(6);
      expect(rest).toEqual(["lo", "Seccomp:\t2"]);
    },
    MACHINE_TIMEOUT_MS,
  );

  machineTest(
    "gets capabilities, limits and a read-only root as asked",
    async () => {
      const options = [
        "--read-only",
        "--cap-drop",
        "ALL",
        "--cap-add",
        "NET_RAW",
        "--security-opt",
        "seccomp=unconfined",
      ];
      const script = `touch /x 2>&1; grep CapEff /proc/self/status; grep -E 'Seccomp:|NoNewPrivs' /proc/self/status
        echo $(( $(cat /sys/fs/cgroup/memory.max) / 1048576 ))`;
      expect(
        await lines([...options, "--security-opt", "no-new-privileges", "--memory", "160m"], script),
      ).toEqual([
        "touch: /x: Read-only file system",
        "CapEff:\t0000000000002000",
        "NoNewPrivs:\t1",
        "Seccomp:\t0",
        "96",
      ]);
    },
    MACHINE_TIMEOUT_MS,
  );

  machineTest(
    "sees files and directories of the host",
    async () => {
      const dir = join(host.dir, "volume");
      mkdirSync(join(dir, "sub"), { recursive: true });
      writeFileSync(join(dir, "sub/file"), "in the directory\n");
      symlinkSync("sub/file", join(dir, "link"));
      const big = crypto.getRandomValues(new Uint8Array(600_000));
      writeFileSync(join(host.dir, "big"), big, { mode: 0o640 });
      writeFileSync(join(host.dir, "empty"), "");
      const script = `cat /data/link; touch /data/x 2>&1; sha256sum < /new/dir/big; stat -c %a /new/dir/big; echo more >> /new/dir/big && echo written
        wc -c < /etc/empty; echo x > /etc/empty`;
      const { stdout, code } = await run(
        ["-v", "./volume:/data:ro", "-v", "./big:/new/dir/big", "-v", "./empty:/etc/empty:ro"],
        ["sh", "-c", `exec 2>&1; ${script}`],
      );
      const digest = new Bun.CryptoHasher("sha256").update(big).digest("hex");
      expect(stdout.split("\n")).toEqual([
        "in the directory",
        "touch: /data/x: Read-only file system",
        `${digest}  -`,
        "640",
        "written",
        "0",
        "sh: can't create /etc/empty: Read-only file system",
        "",
      ]);
      expect(code).not.toBe(0);
      expect((await run(["-v", "./nothing:/data:ro"], ["true"])).stderr).toMatch(
        /^hako: .*it does not exist\n$/,
      );
    },
    MACHINE_TIMEOUT_MS,
  );

  machineTest(
    "talks to the host over a TAP device that goes with it",
    async () => {
      const script =
        'ip -o -4 addr show eth0 | awk "{print \\$4}"; ip route | sed -n "s/default via \\([0-9.]*\\).*/\\1/p"; ping -c 1 -W 5 $(ip route | sed -n "s/default via \\([0-9.]*\\).*/\\1/p") | grep -c "1 packets received"';
      const [address, gateway, received] = await lines(["--net", "tap"], script);
      expect(address).toMatch(/^10\.251\.\d+\.\d+\/30$/);
      expect(gateway).toMatch(/^10\.251\.\d+\.\d+$/);
      expect(received).toBe("1");
      const left = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
      expect(left.filter((entry) => entry.address === gateway)).toEqual([]);
    },
    MACHINE_TIMEOUT_MS,
  );

  machineTest(
    "runs on a q35 machine, too",
    async () => {
      expect(await lines(["--machine", "q35"], "echo $((6 * 7))")).toEqual(["42"]);
    },
    MACHINE_TIMEOUT_MS,
  );

  for (const kind of ["oci-archive", "docker-archive", "rootfs"] as const satisfies ImageKind[]) {
    machineTest(
      `comes from an image of the form ${kind}`,
      async () => {
        const { stdout, code } = await host.run([
          "run",
          "--rm",
          await busyboxImage(kind),
          "cat",
          "/etc/motd",
        ]);
        expect({ stdout, code }).toEqual({ stdout: kind === "rootfs" ? "lower\n" : "upper\n", code: 0 });
      },
      MACHINE_TIMEOUT_MS,
    );
  }
});

describe("Debian", () => {
  const missing = debianMissing("docker-archive");
  testIf(missing === undefined, missing ?? "")(
    "as skopeo packs it installs and removes a package of its own making",
    async () => {
      const script = `set -e; cd /tmp; mkdir -p p/DEBIAN p/usr/share/greeting; echo hello > p/usr/share/greeting/text
        printf 'Package: greeting\\nVersion: 1\\nArchitecture: all\\nMaintainer: nobody\\nDescription: says hello\\n' > p/DEBIAN/control
        dpkg-deb --build p greeting.deb >/dev/null; dpkg --install greeting.deb >/dev/null
        cat /usr/share/greeting/text; dpkg --search /usr/share/greeting/text; dpkg --audit
        dpkg --remove greeting >/dev/null; test ! -e /usr/share/greeting; cat /hako-was-here | wc -l`;
      const image = await debianImage("docker-archive");
      const args = ["run", "--rm", "--memory", "512m", image, "bash", "-c", script];
      const { stdout, stderr, code } = await host.run(args);
      expect({
        stdout,
        code,
        stderr: stderr.replaceAll(/^\(Reading database.*$|^debconf: .*$/gm, "").trim(),
      }).toEqual({
        stdout: "hello\ngreeting: /usr/share/greeting/text\n1\n",
        code: 0,
        stderr: "",
      });
    },
    3 * MACHINE_TIMEOUT_MS,
  );
});

describe("the exit code", () => {
  machineTest(
    "is the container's, 126 and 127 for a command that cannot be run",
    async () => {
      expect(await run([], ["sh", "-c", "exit 7"])).toEqual({ code: 7, stdout: "", stderr: "" });
      const missing = await run([], ["no-such-program"]);
      expect(missing.code).toBe(127);
      expect(missing.stderr).toMatch(/^hako: Cannot start process "no-such-program": .*\n$/);
      const denied = await run([], ["/usr/bin/not-executable"]);
      expect(denied.code).toBe(126);
      expect(denied.stderr).toMatch(/^hako: Cannot start process "\/usr\/bin\/not-executable": .*\n$/);
      const user = await run(["-u", "nobody-knows"], ["true"]);
      expect(user.code).toBe(125);
      expect(user.stderr).toBe('hako: Cannot find user "nobody-knows" in the image\n');
    },
    2 * MACHINE_TIMEOUT_MS,
  );
});

describe("streams", () => {
  machineTest(
    "input and output are binary, and standard error stays apart",
    async () => {
      const bytes = crypto.getRandomValues(new Uint8Array(1_000_000 - 7));
      const image = await busyboxImage("oci");
      const child = host.start(["run", "--rm", "-i", image, "sh", "-c", "cat; echo done >&2"], {
        stdin: bytes,
      });
      const [stdout, stderr] = await Promise.all([child.stdout.bytes(), child.stderr.text()]);
      expect(Buffer.from(stdout).equals(bytes)).toBe(true);
      expect(stderr).toBe("done\n");
      expect(await child.exited).toBe(0);
    },
    MACHINE_TIMEOUT_MS,
  );

  machineTest(
    "a million lines come whole",
    async () => {
      const { stdout, code } = await run([], ["seq", "1", "1000000"]);
      expect(code).toBe(0);
      expect(stdout.length).toBe(6_888_896);
      expect(stdout.endsWith("\n999999\n1000000\n")).toBe(true);
    },
    MACHINE_TIMEOUT_MS,
  );

  machineTest(
    "input that is closed, and input that nobody passes on, is at its end",
    async () => {
      expect(await run(["-i"], ["cat"])).toEqual({ code: 0, stdout: "", stderr: "" });
      expect(await run([], ["cat"], "not for you")).toEqual({ code: 0, stdout: "", stderr: "" });
    },
    2 * MACHINE_TIMEOUT_MS,
  );

  machineTest(
    "a reader that goes away ends the container",
    async () => {
      const script = 'set -o pipefail; "$0" run --rm "$1" yes | head -2; echo $?';
      const args = ["bash", "-c", script, hakoBinary, await busyboxImage("oci")];
      const child = Bun.spawn(args, { env: host.env, stdout: "pipe", stderr: "pipe" });
      expect(await child.stdout.text()).toBe("y\ny\n141\n");
      expect(await child.stderr.text()).toBe("");
    },
    MACHINE_TIMEOUT_MS,
  );
});

describe("--timing", () => {
  machineTest(
    "tells the phases in their order, as a table and as JSON",
    async () => {
      const { stdout, stderr } = await run(["--timing=json"], ["echo", "x"]);
      expect(stdout).toBe("x\n");
      const { phases, totalMs } = JSON.parse(stderr) as {
        phases: { name: string; endMs: number }[];
        totalMs: number;
      };
      const names = phases.map(({ name }) => name);
      for (const name of [
        "hako start",
        "image",
        "asset",
        "VMM start",
        "kernel",
        "agent answers",
        "container created",
        "container started",
        "first byte",
        "exit",
        "torn down",
      ]) {
        expect(names).toContain(name);
      }
      expect(phases.at(-1)).toMatchObject({ name: "torn down", endMs: totalMs });
      expect(names.indexOf("first byte")).toBeLessThan(names.indexOf("exit"));
    },
    MACHINE_TIMEOUT_MS,
  );
});
