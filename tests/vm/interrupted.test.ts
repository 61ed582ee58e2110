/** Starts that are broken off, machines and managers that are killed: nothing may be left behind. */
import { afterAll, describe, expect } from "bun:test";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { HakoHost, hakoBinary, MACHINE_TIMEOUT_MS, machineTest } from "../support/hako-host.ts";
import { busyboxImage } from "../support/images.ts";

const host = new HakoHost();
afterAll(() => host[Symbol.dispose]());

async function until(what: string, check: () => boolean): Promise<void> {
  for (let tries = 0; tries < 3000; tries++) {
    if (check()) return;
    await Bun.sleep(10);
  }
  throw new Error(`never seen: ${what}`);
}

function sandboxes(): string[] {
  const path = join(host.runDir, "sandbox");
  return existsSync(path) ? readdirSync(path) : [];
}

function stateText(): string {
  const [id = ""] = sandboxes();
  const path = join(host.runDir, "sandbox", id, "state.json");
  return existsSync(path) ? readFileSync(path, "utf8") : "";
}

/** Starts a container in a process group of its own, as a shell does. */
async function startRun(...args: readonly string[]) {
  const child = Bun.spawn([hakoBinary, "run", ...args], {
    env: host.env,
    cwd: host.dir,
    detached: true,
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  return { child, interrupt: () => process.kill(-child.pid, "SIGINT") };
}

const moments: readonly (readonly [name: string, seen: () => boolean])[] = [
  ["the sandbox has its directory", () => sandboxes().length > 0],
  ["the monitor is planned", () => stateText().includes('"processes":[]')],
  ["the monitor runs", () => host.monitors().length > 0],
  ["the monitor is known", () => stateText().includes('"processes":[{')],
];

describe("Ctrl-C", () => {
  machineTest(
    "in the first moments leaves nothing behind",
    async () => {
      const image = await busyboxImage("oci");
      for (const delayMs of [0, 5, 10, 20, 40]) {
        const { child, interrupt } = await startRun("--rm", image, "sleep", "1000");
        await Bun.sleep(delayMs);
        interrupt();
        const code = await child.exited;
        // Before it has begun to listen, the signal ends it as any other program.
        expect([130, 125]).toContain(child.signalCode === "SIGINT" ? 130 : code);
        expect(host.leftovers()).toEqual([]);
      }
    },
    MACHINE_TIMEOUT_MS,
  );

  for (const [name, seen] of moments) {
    machineTest(
      `when ${name}`,
      async () => {
        const { child, interrupt } = await startRun(
          "--rm",
          "--net",
          "tap",
          await busyboxImage("oci"),
          "sleep",
          "1000",
        );
        await until(name, seen);
        interrupt();
        expect(await child.exited).toBe(130);
        expect(await child.stderr.text()).toBe("");
        expect(host.leftovers()).toEqual([]);
      },
      MACHINE_TIMEOUT_MS,
    );
  }

  for (const delayMs of [300, 1000, 2000, 4000]) {
    machineTest(
      `${delayMs} ms after the monitor was started`,
      async () => {
        const { child, interrupt } = await startRun("--rm", await busyboxImage("oci"), "sleep", "1000");
        await until("the monitor", () => host.monitors().length > 0);
        await Bun.sleep(delayMs);
        interrupt();
        await Promise.race([child.exited, Bun.sleep(2000)]);
        // Once it runs, the container's first process has no handler and takes no hint; the third one is an order.
        for (let more = 0; more < 2 && child.exitCode === null; more++) {
          interrupt();
          await Bun.sleep(100);
        }
        expect([130, 137]).toContain(await child.exited);
        expect(host.leftovers()).toEqual([]);
      },
      MACHINE_TIMEOUT_MS,
    );
  }

  machineTest(
    "ends a detached start, too",
    async () => {
      const { child, interrupt } = await startRun("-d", await busyboxImage("oci"), "sleep", "1000");
      await until("the monitor", () => host.monitors().length > 0);
      interrupt();
      expect(await child.exited).toBe(130);
      await until("the manager's end", () => host.leftovers().length === 0);
    },
    MACHINE_TIMEOUT_MS,
  );
});

describe("signals", () => {
  machineTest(
    "go to the container once it runs",
    async () => {
      const script =
        'trap "echo got TERM; exit 42" TERM; trap "echo got USR2" USR2; echo ready; while :; do sleep 0.1; done';
      const { child } = await startRun("--rm", await busyboxImage("oci"), "sh", "-c", script);
      const reader = child.stdout.getReader();
      let output = "";
      const expectOutput = async (text: string) => {
        while (!output.includes(text)) {
          const { done, value } = await reader.read();
          if (done) throw new Error(`the output ended: ${output}`);
          output += Buffer.from(value).toString();
        }
      };
      await expectOutput("ready");
      child.kill("SIGUSR2");
      await expectOutput("got USR2");
      child.kill("SIGTERM");
      await expectOutput("got TERM");
      expect(await child.exited).toBe(42);
      expect(host.leftovers()).toEqual([]);
    },
    MACHINE_TIMEOUT_MS,
  );
});

describe("a guest that ends during the start", () => {
  machineTest(
    "is told with its last words, in the foreground and detached",
    async () => {
      const image = await busyboxImage("oci");
      host.configure('[hypervisor.qemu]\nkernel_params = "rdinit=/missing"\n');
      try {
        for (const option of ["--rm", "-d"]) {
          const { code, stdout, stderr } = await host.run([
            "run",
            option,
            "--hypervisor",
            "qemu",
            image,
            "true",
          ]);
          expect({ code, stdout }).toEqual({ code: 125, stdout: "" });
          expect(stderr).toMatch(
            /^hako: The virtual machine ended: .*\nThe guest's console ended with:\n( {2}.*\n)* {2}.*Kernel panic - .*\n/,
          );
          await until("the manager's end", () => host.leftovers().length === 0);
        }
      } finally {
        host.configure("");
      }
    },
    MACHINE_TIMEOUT_MS,
  );
});

describe("what is killed", () => {
  machineTest(
    "a monitor is missed at once, and said to be",
    async () => {
      const { child } = await startRun(
        "--rm",
        await busyboxImage("oci"),
        "sh",
        "-c",
        "echo ready; sleep 1000",
      );
      await child.stdout.getReader().read();
      for (const pid of host.monitors()) process.kill(pid, "SIGKILL");
      expect(await child.exited).toBe(125);
      expect(await child.stderr.text()).toMatch(
        /^hako: The virtual machine ended: QEMU ended by signal SIGKILL\n/,
      );
      expect(host.leftovers()).toEqual([]);
    },
    MACHINE_TIMEOUT_MS,
  );

  machineTest(
    "a monitor during the start",
    async () => {
      const { child } = await startRun("--rm", await busyboxImage("oci"), "true");
      await until("the monitor is known", () => stateText().includes('"processes":[{'));
      for (const pid of host.monitors()) process.kill(pid, "SIGKILL");
      expect(await child.exited).toBe(125);
      expect(await child.stderr.text()).toMatch(
        /^hako: The virtual machine ended: QEMU ended by signal SIGKILL\n/,
      );
      expect(host.leftovers()).toEqual([]);
    },
    MACHINE_TIMEOUT_MS,
  );

  machineTest(
    "a detached manager: the next command cleans up after it",
    async () => {
      const image = await busyboxImage("oci");
      expect(
        (await host.run(["run", "-d", "--name", "orphan", "--net", "tap", image, "sleep", "1000"])).code,
      ).toBe(0);
      const [found] = await host.json<{ manager: { pid: number } }[]>(["inspect", "orphan"]);
      process.kill(found?.manager.pid ?? 0, "SIGKILL");
      await until("the manager's end", () => host.processes().every((pid) => pid !== found?.manager.pid));
      expect((await host.run(["ps", "-a"])).stdout).toMatch(/ Exited \(137\) .* orphan\n$/);
      expect(host.processes()).toEqual([]);
      expect((await host.run(["rm", "orphan"])).code).toBe(0);
      expect(host.leftovers()).toEqual([]);
    },
    MACHINE_TIMEOUT_MS,
  );

  machineTest(
    "a foreground hako in the middle of a start",
    async () => {
      const { child } = await startRun("--rm", await busyboxImage("oci"), "true");
      await until("the monitor", () => host.monitors().length > 0);
      child.kill("SIGKILL");
      await child.exited;
      await host.run(["ps"]);
      expect(host.leftovers()).toEqual([]);
    },
    MACHINE_TIMEOUT_MS,
  );

  machineTest(
    "a container that takes more memory than it may, in a machine of 128 MiB that goes on",
    async () => {
      const image = await busyboxImage("oci");
      const args = [
        "run",
        "--name",
        "greedy",
        "--memory",
        "128m",
        image,
        "sh",
        "-c",
        "tail /dev/zero; echo $?",
      ];
      const { stdout, code } = await host.run(args);
      expect({ stdout, code }).toEqual({ stdout: "137\n", code: 0 });
      const [found] = await host.json<{ containers: { oomKilled?: boolean }[] }[]>(["inspect", "greedy"]);
      expect(found?.containers[0]?.oomKilled).toBe(true);
      await host.run(["rm", "greedy"]);
      expect(host.leftovers()).toEqual([]);
    },
    MACHINE_TIMEOUT_MS,
  );
});
