/** A container in the background, and the commands that reach it from another process. */
import { afterAll, beforeAll, describe, expect } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { HakoHost, hakoBinary, MACHINE_TIMEOUT_MS, machineTest } from "../support/hako-host.ts";
import { busyboxImage } from "../support/images.ts";

const host = new HakoHost();
const NAME = "subject";
let started: Promise<{ code: number; stdout: string; stderr: string }> | undefined;

/** The container that most tests here look at; it is started once and says what signals it gets. */
async function subject(): Promise<string> {
  const script = 'echo out; echo err >&2; trap "echo got USR1" USR1; while :; do sleep 0.2; done';
  started ??= busyboxImage("oci").then((image) =>
    host.run(["run", "-d", "--name", NAME, image, "sh", "-c", script]),
  );
  const { stdout, stderr, code } = await started;
  expect({ stderr, code }).toEqual({ stderr: "", code: 0 });
  return stdout.trim();
}

beforeAll(() => {
  host.configure("[log]\nmax_bytes = 20000");
});

afterAll(async () => {
  await host.run(["rm", "-f", NAME]);
  host[Symbol.dispose]();
});

interface Listed {
  id: string;
  name: string;
  status: string;
  exitCode: number | null;
}

async function listed(name: string): Promise<Listed | undefined> {
  return (await host.json<Listed[]>(["ps", "-a", "--json"])).find((entry) => entry.name === name);
}

async function until(what: string, check: () => Promise<boolean>): Promise<void> {
  for (let tries = 0; tries < 300; tries++) {
    if (await check()) return;
    await Bun.sleep(100);
  }
  throw new Error(`never seen: ${what}`);
}

describe("a detached container", () => {
  machineTest(
    "is listed, inspected and measured",
    async () => {
      const id = await subject();
      expect(id).toMatch(/^[0-9a-f]{64}$/);
      expect(await listed(NAME)).toMatchObject({ id, status: "running", exitCode: null });
      expect((await host.run(["ps"])).stdout).toMatch(
        new RegExp(`^${id.slice(0, 12)} .* Up .* ${NAME}$`, "m"),
      );
      expect((await host.run(["ps", "-q"])).stdout).toBe(`${id.slice(0, 12)}\n`);
      const [found] = await host.json<
        { id: string; machine: { monitor: { processes: { pid: number }[] } } }[]
      >(["inspect", NAME]);
      expect(found?.id).toBe(id);
      expect(host.monitors()).toEqual(found?.machine.monitor.processes.map(({ pid }) => pid) ?? []);
      const [usage] = await host.json<Record<string, number>[]>(["stats", "--json"]);
      expect(usage?.memoryBytes).toBeGreaterThan(0);
      expect(usage?.memoryLimitBytes).toBe(192 * 1024 * 1024);
      expect(usage?.processes).toBeGreaterThan(0);
      expect((await host.run(["stats", NAME])).stdout).toMatch(/^CONTAINER ID.*\n.* MiB \/ 192 MiB /);
    },
    MACHINE_TIMEOUT_MS,
  );

  machineTest(
    "keeps its name to itself",
    async () => {
      await subject();
      const { code, stderr } = await host.run([
        "run",
        "--rm",
        "--name",
        NAME,
        await busyboxImage("oci"),
        "true",
      ]);
      expect(code).toBe(125);
      expect(stderr).toMatch(/^hako: Name "subject" is in use by container [0-9a-f]{12}: .*\n$/);
      expect((await host.run(["rm", NAME])).stderr).toMatch(
        /^hako: Cannot remove container "subject": it is running .*\n$/,
      );
      expect(host.leftovers()).toHaveLength(4);
    },
    MACHINE_TIMEOUT_MS,
  );

  machineTest(
    "runs further commands",
    async () => {
      await subject();
      const both = await host.run([
        "exec",
        "-e",
        "A=b",
        "-w",
        "/tmp",
        "-u",
        "user",
        NAME,
        "sh",
        "-c",
        'id -un; pwd; echo "$A$IMAGE"; echo err >&2; exit 3',
      ]);
      expect(both).toEqual({ code: 3, stdout: "user\n/tmp\nbbusybox\n", stderr: "err\n" });
      const bytes = crypto.getRandomValues(new Uint8Array(300_000));
      const child = host.start(["exec", "-i", NAME, "cat"], { stdin: bytes });
      expect(Buffer.from(await child.stdout.bytes()).equals(bytes)).toBe(true);
      expect(await host.run(["exec", NAME, "cat"])).toEqual({ code: 0, stdout: "", stderr: "" });
      expect((await host.run(["exec", NAME, "no-such-program"])).code).toBe(127);
      expect((await host.run(["exec", NAME, "/usr/bin/not-executable"])).code).toBe(126);
      expect((await host.run(["exec", "-u", "nobody-knows", NAME, "true"])).stderr).toMatch(
        /^hako: .*"nobody-knows".*\n$/,
      );
    },
    MACHINE_TIMEOUT_MS,
  );

  machineTest(
    "ends a command whose caller has gone, and keeps one that is detached",
    async () => {
      await subject();
      const child = host.start(["exec", NAME, "sleep", "4321"]);
      const running = async (seconds: string) =>
        (await host.run(["exec", NAME, "ps"])).stdout.includes(`sleep ${seconds}`);
      await until("the command", () => running("4321"));
      child.kill("SIGKILL");
      await until("its end", async () => !(await running("4321")));
      expect(await host.run(["exec", "-d", NAME, "sleep", "5432"])).toEqual({
        code: 0,
        stdout: "",
        stderr: "",
      });
      expect(await running("5432")).toBe(true);
    },
    MACHINE_TIMEOUT_MS,
  );

  machineTest(
    "gives a command a terminal whose settings it gives back",
    async () => {
      await subject();
      let output = "";
      const data = (_: unknown, bytes: Uint8Array) => {
        output += Buffer.from(bytes).toString();
      };
      const child = Bun.spawn(
        ["bash", "-c", '"$0" exec -it "$1" sh; echo "code $?"; stty -a', hakoBinary, NAME],
        {
          env: { ...host.env, TERM: "xterm" },
          terminal: { cols: 91, rows: 33, data },
        },
      );
      await until("a prompt", async () => output.includes("# "));
      child.terminal?.write("stty size; tty\n");
      await until("the size", async () => output.includes("33 91") && output.includes("/dev/pts/"));
      child.terminal?.write("sleep 100\n");
      await until("the command", async () => output.includes("sleep 100"));
      child.terminal?.write("\x03");
      child.terminal?.write("exit 4\n");
      await child.exited;
      expect(output).toContain("code 4");
      const settings = output.slice(output.lastIndexOf("code 4"));
      for (const setting of ["icanon", "isig", "echo", "opost", "icrnl"]) {
        expect(settings).toMatch(new RegExp(`\\s${setting}\\s`));
      }
    },
    MACHINE_TIMEOUT_MS,
  );

  machineTest(
    "can be paused, resumed and signalled",
    async () => {
      await subject();
      expect((await host.run(["pause", NAME])).stdout).toBe(`${NAME}\n`);
      expect((await listed(NAME))?.status).toBe("paused");
      expect((await host.run(["pause", NAME])).stderr).toMatch(
        /^hako: Cannot pause container .*: it is paused\n$/,
      );
      expect((await host.run(["exec", NAME, "true"])).code).toBe(125);
      expect(await host.json<string[]>(["resume", "--json", NAME])).toEqual([NAME]);
      expect((await host.run(["resume", NAME])).stderr).toMatch(
        /^hako: Cannot resume container .*: it is running\n$/,
      );
      expect((await host.run(["kill", "-s", "USR1", NAME])).code).toBe(0);
      await until("the signal", async () => (await host.run(["logs", NAME])).stdout.includes("got USR1"));
    },
    MACHINE_TIMEOUT_MS,
  );

  machineTest(
    "has a log with both streams",
    async () => {
      await subject();
      const { stdout, stderr } = await host.run(["logs", NAME]);
      expect(stdout).toStartWith("out\n");
      expect(stderr).toBe("err\n");
      const [first] = (await host.run(["logs", "--json", NAME])).stdout.split("\n");
      expect(JSON.parse(first ?? "")).toMatchObject({
        stream: expect.stringMatching(/stdout|stderr/),
        time: expect.any(String),
      });
      expect((await host.run(["logs", "-t", NAME])).stdout).toMatch(/^\d{4}-\d\d-\d\dT[\d:.]+Z out\n/);
    },
    MACHINE_TIMEOUT_MS,
  );

  machineTest(
    "is gone without a trace after rm -f",
    async () => {
      await subject();
      expect(await host.run(["rm", "-f", NAME])).toEqual({ code: 0, stdout: `${NAME}\n`, stderr: "" });
      expect(await host.leftoversAtLast()).toEqual([]);
    },
    MACHINE_TIMEOUT_MS,
  );
});

describe("a detached container that ends", () => {
  machineTest(
    "stays listed with its exit code and a bounded log until it is removed",
    async () => {
      const image = await busyboxImage("oci");
      const { code } = await host.run([
        "run",
        "-d",
        "--name",
        "ends",
        image,
        "sh",
        "-c",
        "seq 1 20000; sleep 1; echo last; exit 5",
      ]);
      expect(code).toBe(0);
      const follow = await host.run(["logs", "-f", "ends"]);
      expect(follow.stdout).toEndWith("\nlast\n");
      await until("the end", async () => (await listed("ends"))?.status === "stopped");
      expect(await listed("ends")).toMatchObject({ exitCode: 5 });
      expect(host.monitors()).toEqual([]);
      const [found] = await host.json<{ dir: string }[]>(["inspect", "ends"]);
      for (const name of ["container.log", "container.log.1"]) {
        expect(readFileSync(join(found?.dir ?? "", name)).length).toBeLessThan(20_000 + 70_000);
      }
      expect((await host.run(["exec", "ends", "true"])).stderr).toBe(
        'hako: Container "ends" is not running\n',
      );
      expect((await host.run(["rm", "ends"])).code).toBe(0);
      expect(await host.leftoversAtLast()).toEqual([]);
    },
    MACHINE_TIMEOUT_MS,
  );

  machineTest(
    "with --rm leaves nothing, and stop sends the image's signal",
    async () => {
      const image = await busyboxImage("oci");
      await host.run([
        "run",
        "-d",
        "--rm",
        "--name",
        "stops",
        image,
        "sh",
        "-c",
        'trap "exit 0" TERM; while :; do sleep 0.1; done',
      ]);
      expect(await host.run(["stop", "stops"])).toEqual({ code: 0, stdout: "stops\n", stderr: "" });
      await until("the manager's end", async () => host.leftovers().length === 0);
    },
    MACHINE_TIMEOUT_MS,
  );

  machineTest(
    "can be killed while it is frozen, and its manager be told to end",
    async () => {
      const image = await busyboxImage("oci");
      const script = 'trap "echo asked; exit 0" TERM; while :; do sleep 0.1; done';
      const names = ["frozen", "told"];
      const starts = names.map((name) => host.run(["run", "-d", "--name", name, image, "sh", "-c", script]));
      for (const { code } of await Promise.all(starts)) expect(code).toBe(0);
      await host.run(["pause", "frozen"]);
      await host.run(["kill", "frozen"]);
      const [told] = await host.json<{ manager: { pid: number } }[]>(["inspect", "told"]);
      process.kill(told?.manager.pid ?? 0, "SIGTERM");
      for (const name of names)
        await until("its end", async () => (await listed(name))?.status === "stopped");
      expect((await listed("frozen"))?.exitCode).toBe(137);
      expect((await listed("told"))?.exitCode).toBe(0);
      expect((await host.run(["logs", "told"])).stdout).toBe("asked\n");
      expect((await host.run(["rm", ...names])).stdout).toBe("frozen\ntold\n");
      expect(await host.leftoversAtLast()).toEqual([]);
    },
    MACHINE_TIMEOUT_MS,
  );

  machineTest(
    "that cannot be started says why, with the same exit code",
    async () => {
      const image = await busyboxImage("oci");
      const { code, stdout, stderr } = await host.run(["run", "-d", image, "no-such-program"]);
      expect({ code, stdout }).toEqual({ code: 127, stdout: "" });
      expect(stderr).toMatch(/^hako: Cannot start process "no-such-program": .*\n$/);
      await until("the manager's end", async () => host.leftovers().length === 0);
    },
    MACHINE_TIMEOUT_MS,
  );
});
