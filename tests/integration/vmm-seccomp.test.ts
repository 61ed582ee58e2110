import { afterAll, describe, expect } from "bun:test";
import { join } from "node:path";
import { SYS } from "#sys/syscall.ts";
import { runFilter } from "../support/classic-bpf.ts";
import { TemporaryDirectory } from "../support/container.ts";
import { testIf } from "../support/skip.ts";

const root = join(import.meta.dir, "../..");
const compiledTest = testIf(Bun.which("musl-gcc") !== null, "needs musl-gcc");

const ARCH_X86_64 = 0xc000_003e;
const ARCH_I386 = 0x4000_0003;
const KILL = 0x8000_0000;
const ALLOW = 0x7fff_0000;
const SYSCALLS_MAX = 1000;

const KVM_RUN = 0xae80n;
const KVM_CREATE_VM = 0xae01n;
const TIOCSTI = 0x5412n;
const PROT_EXEC = 4n;

/** Numbers of asm/unistd_64.h that hako itself never uses. */
const clone = 56;
const ptrace = 101;
const execveat = 322;
const clone3 = 435;

const filters = [
  { name: "event", index: 0, most: 40 },
  { name: "vcpu", index: 1, most: 20 },
] as const;

let built: { directory: TemporaryDirectory; path: string } | undefined;

/** tests/fixtures/vmm-filter.c, built as hako-vmm is. */
function filterProgram(): string {
  if (built) return built.path;
  const directory = new TemporaryDirectory();
  const path = join(directory.path, "vmm-filter");
  const include = ["-idirafter", "/usr/include", "-idirafter", "/usr/include/x86_64-linux-gnu"];
  const command = ["musl-gcc", "-std=gnu11", "-O2", "-static", ...include, "-o", path];
  const { exitCode, stderr } = Bun.spawnSync([...command, "tests/fixtures/vmm-filter.c"], { cwd: root });
  if (exitCode !== 0) throw new Error(`Cannot build vmm-filter: ${stderr}`);
  built = { directory, path };
  return path;
}

function show(what: string, filter: number): Buffer {
  const { exitCode, stdout } = Bun.spawnSync([filterProgram(), what, `${filter}`]);
  expect(exitCode).toBe(0);
  return stdout;
}

const calls = (filter: number) => show("list", filter).toString().trim().split("\n").map(Number);

describe.each([...filters])("the filter of $name threads", ({ index, most }) => {
  const action = (number: number, args: bigint[] = [], arch = ARCH_X86_64) =>
    runFilter(show("program", index), { arch, number, args }).action >>> 0;

  compiledTest("has few system calls, each once, and kills for every other one", () => {
    const list = calls(index);
    expect(new Set(list).size).toBe(list.length);
    expect(list.length).toBeLessThanOrEqual(most);
    const program = show("program", index);
    for (let number = 0; number < SYSCALLS_MAX; number++) {
      if (list.includes(number)) continue;
      for (const args of [[], [1n, 1n, 1n], [KVM_RUN, KVM_RUN, KVM_RUN]]) {
        expect(runFilter(program, { arch: ARCH_X86_64, number, args }).action >>> 0).toBe(KILL);
      }
    }
  });

  compiledTest("knows nothing of files, programs, processes and networks", () => {
    const list = calls(index);
    for (const call of [SYS.openat, SYS.socket, SYS.connect, execveat, SYS.mount, ptrace, clone3])
      expect(list).not.toContain(call);
  });

  compiledTest("allows of an ioctl, a mapping and a thread only what is needed", () => {
    expect(action(SYS.ioctl, [7n, KVM_RUN])).toBe(ALLOW);
    // The kernel looks at 32 bits of a request, and so does the filter.
    expect(action(SYS.ioctl, [7n, KVM_RUN | (0xffff_ffffn << 32n)])).toBe(ALLOW);
    expect(action(SYS.ioctl, [7n, KVM_CREATE_VM])).toBe(index === 0 ? ALLOW : KILL);
    expect(action(SYS.ioctl, [7n, TIOCSTI])).toBe(KILL);
    expect(action(SYS.mmap, [0n, 4096n, 3n])).toBe(ALLOW);
    expect(action(SYS.mmap, [0n, 4096n, 3n | PROT_EXEC])).toBe(KILL);
    expect(action(clone, [0x7d_0f00n])).toBe(index === 0 ? ALLOW : KILL);
    expect(action(clone, [17n])).toBe(KILL);
    expect(action(SYS.socketpair, [1n])).toBe(index === 0 ? ALLOW : KILL);
    expect(action(SYS.socketpair, [2n])).toBe(KILL);
  });

  compiledTest("kills for calls by another table", () => {
    expect(action(SYS.read, [], ARCH_I386)).toBe(KILL);
    expect(action(0x4000_0000 | SYS.read)).toBe(KILL);
  });

  compiledTest("kills the process", () => {
    const { signalCode } = Bun.spawnSync([filterProgram(), "open", `${index}`]);
    expect(signalCode).toBe("SIGSYS");
  });
});

compiledTest("a vCPU's thread may do nothing that the event thread may not", () => {
  const event = calls(0);
  expect(calls(1).filter((call) => !event.includes(call))).toEqual([]);
});

afterAll(() => {
  built?.directory[Symbol.dispose]();
  built = undefined;
});
