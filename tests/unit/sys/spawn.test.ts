import { expect, test } from "bun:test";
import { mkdirSync, readFileSync, rmdirSync } from "node:fs";
import { E, isErrno } from "#sys/errno.ts";
import { memfd, O, openFd, pipe, readAll } from "#sys/fd.ts";
import { type ProcessEnd, reapProcess, waitPidfd } from "#sys/process.ts";
import { type SpawnRequest, spawn } from "#sys/spawn.ts";
import { testIf } from "../../support/skip.ts";

/** Runs a shell command with descriptors of its own; what it wrote to its standard output, and how it ended. */
async function shell(
  command: string,
  options: Partial<SpawnRequest> = {},
): Promise<{ output: string; end: ProcessEnd | undefined }> {
  using program = openFd("/bin/sh", O.RDONLY);
  using none = openFd("/dev/null", O.RDWR);
  const { read, write } = pipe();
  using output = read;
  const { pidfd } = spawn({
    program: program.number,
    arguments: ["sh", "-c", command],
    fds: [none.number, write.number, write.number],
    ...options,
  });
  write.close();
  await waitPidfd(pidfd.number);
  const end = reapProcess(pidfd.number);
  pidfd.close();
  return { output: readAll(output.number, "output", 65_536).toString(), end };
}

test("a process gets its arguments, its environment and its descriptors, and nothing else", async () => {
  const { output, end } = await shell("", {
    arguments: ["sh", "-c", 'echo "$0 $1 [$A] [$HOME]"; echo /proc/self/fd/*; exit 7', "zero", "ö"],
    environment: ["A=1 2"],
  });
  // The shell's own look at the directory is the fourth.
  expect(output).toBe("zero ö [1 2] []\n/proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2 /proc/self/fd/3\n");
  expect(end).toEqual({ code: 7 });
});

test("descriptors come in the order given, also when they stand in each other's way", async () => {
  using program = openFd("/bin/sh", O.RDONLY);
  const files = ["a", "b", "c", "d"].map((name) => memfd(name, Buffer.from(name)));
  const { read, write } = pipe();
  using output = read;
  const order = [3, 1, 0, 2, 3].map((index) => files[index]?.number ?? -1);
  const { pidfd } = spawn({
    program: program.number,
    arguments: ["sh", "-c", "for fd in 0 2 3 4 5; do readlink /proc/self/fd/$fd; done"],
    environment: ["PATH=/bin:/usr/bin"],
    fds: [order[0] ?? -1, write.number, ...order.slice(1)],
  });
  write.close();
  await waitPidfd(pidfd.number);
  reapProcess(pidfd.number);
  pidfd.close();
  for (const file of files) file.close();
  const names = readAll(output.number, "output", 65_536).toString();
  expect(names.match(/memfd:\w/g)).toEqual(["memfd:d", "memfd:b", "memfd:a", "memfd:c", "memfd:d"]);
});

test("a process has a session of its own, and its end tells what killed it", async () => {
  const { output, end } = await shell(
    "read -r _ _ _ _ _ session _ < /proc/$$/stat; echo $((session == $$)); kill -9 $$",
  );
  expect(output).toBe("1\n");
  expect(end).toEqual({ code: 137, signal: 9 });
});

test("a program that cannot run is an error, and no process stays", () => {
  using text = memfd("text", Buffer.from("not a program"));
  using none = openFd("/dev/null", O.RDWR);
  const start = (options: Partial<SpawnRequest>) => () =>
    spawn({ program: text.number, arguments: ["x"], fds: [none.number], ...options });
  const errno = (action: () => unknown, expected: number) => {
    try {
      action();
    } catch (error) {
      if (isErrno(error, expected)) return true;
      throw error;
    }
    return false;
  };
  expect(errno(start({}), E.ENOEXEC)).toBe(true);
  expect(errno(start({ program: 9999 }), E.EBADF)).toBe(true);
  expect(errno(start({ fds: [9999] }), E.EBADF)).toBe(true);
  expect(errno(start({ cgroup: none.number }), E.EBADF)).toBe(true);
  expect(start({ arguments: [] })).toThrow(
    "Cannot start a process: it takes a name and at most 32 descriptors",
  );
  expect(start({ arguments: ["a\0b"] })).toThrow('Cannot pass "a\0b" to a process: it holds a NUL');
  expect(start({ fds: Array<number>(33).fill(none.number) })).toThrow("at most 32 descriptors");
});

/** A cgroup v2 hierarchy of this host in which we may make groups. */
function cgroupRoot(): string | undefined {
  const mount = readFileSync("/proc/mounts", "utf8")
    .split("\n")
    .find((line) => line.split(" ")[2] === "cgroup2");
  return process.getuid?.() === 0 ? mount?.split(" ")[1] : undefined;
}

testIf(cgroupRoot() !== undefined, "needs root and cgroup v2")(
  "a process is born into its cgroup",
  async () => {
    const path = `${cgroupRoot()}/hako-spawn-test-${process.pid}`;
    mkdirSync(path);
    try {
      using cgroup = openFd(path, O.RDONLY | O.DIRECTORY);
      const { output } = await shell("cat /proc/self/cgroup", {
        cgroup: cgroup.number,
        environment: ["PATH=/bin:/usr/bin"],
      });
      expect(output).toContain(`/hako-spawn-test-${process.pid}\n`);
    } finally {
      rmdirSync(path);
    }
  },
);
