import { describe, expect } from "bun:test";
import { writeContainer } from "#agent/launcher/container-request.ts";
import { RequestWriter } from "#agent/launcher/request-writer.ts";
import { FIELD } from "#agent/launcher/wire.ts";
import { type ContainerChange, makeSpec } from "../support/container.ts";
import { bootGuest, guestObstacle } from "../support/init-guest.ts";
import { testIf } from "../support/skip.ts";

const guestTest = testIf(guestObstacle === undefined, guestObstacle ?? "");
const TIMEOUT = 70_000;

/** A request for the fake agent, whose streams are the console. */
function request(
  script: string,
  change: ContainerChange = {},
  more: (writer: RequestWriter) => void = () => {},
): Buffer {
  const writer = new RequestWriter();
  const spec = makeSpec(["sh", "-c", script], { readonly: true, ...change });
  writeContainer(writer, { spec, rootfs: "/box", stdio: { stdin: 0, stdout: 1, stderr: 2 } })[
    Symbol.dispose
  ]();
  more(writer);
  return writer.finish();
}

/** Lines that start with a word, without it. */
function lines(console: string, word: string): string[] {
  return console
    .split("\n")
    .flatMap((line) => (line.startsWith(word) ? [line.slice(word.length).trim()] : []));
}

describe("hako-init as PID 1", () => {
  guestTest(
    "boots, starts the agent with a clean environment, launches containers, powers off",
    async () => {
      const cgroup = { destination: "/sys/fs/cgroup", type: "cgroup", source: "cgroup", options: ["ro"] };
      const sysfs = { destination: "/sys", type: "sysfs", source: "sysfs", options: ["ro", "nosuid"] };
      const script =
        "echo first: $(hostname) $(cat /proc/sys/kernel/domainname) $$ $(uname -r); " +
        "echo files: $(ulimit -n) $(ulimit -Hn); echo mounts: $(cut -d' ' -f2 /proc/mounts); exit 42";
      const run = await bootGuest({
        kernelParams: ["hako.timing"],
        requests: [
          request(script, { hostname: "box", mounts: [sysfs, cgroup] }, (writer) =>
            writer.add(FIELD.DOMAINNAME, "example.test"),
          ),
          request("kill -9 $$", { namespaces: ["mount"] }),
          request("true", { process: { Args: ["/missing"] } }),
        ],
      });
      // Settings of the agent's JavaScript engine are a matter of measurements.
      const environment = lines(run.console, "fake-agent: environment").filter(
        (entry) => !entry.startsWith("BUN_"),
      );
      expect(environment.sort()).toEqual([
        "HAKO_LAUNCHER_FD=3",
        "HOME=/root",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "TMPDIR=/tmp",
      ]);
      expect(lines(run.console, "fake-agent: arguments")).toEqual(["2 agent"]);
      expect(lines(run.console, "first:")[0]).toMatch(/^box example\.test 1 6\./);
      expect(lines(run.console, "files:")).toEqual(["1024 1048576"]);
      expect(lines(run.console, "mounts:")).toEqual(["/ /proc /dev /dev/pts /dev/shm /sys /sys/fs/cgroup"]);
      expect(lines(run.console, "fake-agent: exit status")).toEqual(["0x2a00", "0x9"]);
      expect(lines(run.console, "fake-agent: failed")).toEqual(["step 23 errno 2 /missing"]);
      const marks = lines(run.console, "hako.timing").map((line) => line.split(" "));
      expect(marks.map(([name]) => name)).toEqual(["init-start", "root-mounted", "agent-started"]);
      const times = marks.map(([, ns]) => Number(ns));
      expect(times).toEqual(times.toSorted((a, b) => a - b));
      expect(run.code).toBe(0);
    },
    TIMEOUT,
  );

  guestTest(
    "takes the agent's program from a second device, found by serial",
    async () => {
      const run = await bootGuest({ programDevice: true, requests: [request("echo container ran")] });
      expect(lines(run.console, "container")).toEqual(["ran"]);
      expect(run.code).toBe(0);
    },
    TIMEOUT,
  );

  guestTest(
    "ends a machine without ACPI, too",
    async () => {
      const run = await bootGuest({ acpi: false });
      expect(lines(run.console, "fake-agent: arguments")).toEqual(["2 agent"]);
      expect(run.code).toBe(0);
    },
    TIMEOUT,
  );

  guestTest(
    "says how the agent ended and powers off",
    async () => {
      const died = await bootGuest({ end: "die" });
      expect(lines(died.console, "hako-init:")).toEqual(["the agent exited with code 7; powering off"]);
      const silent = await bootGuest({ end: "hang-up" });
      expect(lines(silent.console, "hako-init:")).toEqual([
        "the agent closed its launcher socket; powering off",
      ]);
      const missing = await bootGuest({ end: "missing" });
      expect(lines(missing.console, "hako-init:")).toEqual([
        "cannot start /usr/bin/hako: No such file or directory",
        "the agent exited with code 127; powering off",
      ]);
      expect([died.code, silent.code, missing.code]).toEqual([0, 0, 0]);
    },
    3 * TIMEOUT,
  );

  guestTest(
    "says which device it misses",
    async () => {
      const run = await bootGuest({ serial: "something-else" });
      expect(lines(run.console, "hako-init:")).toEqual([
        'no block device with serial "hako-guest" after 10000 ms: No such device',
      ]);
      expect(run.code).toBe(0);
    },
    TIMEOUT,
  );

  guestTest(
    "reaps orphans and leaves no process behind a container",
    async () => {
      const orphans =
        "for i in 1 2 3 4 5 6 7 8; do (sleep 0.1 &) ; done; sleep 0.5; echo zombies: $(ps -o stat | grep -c Z)";
      const run = await bootGuest({
        requests: [
          request(orphans, { namespaces: ["mount"] }),
          request("(sleep 1000 &); exit 3"),
          request("echo left: $(ps | grep -c 'sleep 100[0]')", { namespaces: ["mount"] }),
        ],
      });
      expect(lines(run.console, "zombies:")).toEqual(["0"]);
      expect(lines(run.console, "left:")).toEqual(["0"]);
    },
    TIMEOUT,
  );
});
