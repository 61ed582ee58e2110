import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import {
  compileSeccomp,
  type SeccompArgument,
  type SeccompProfile,
  type SeccompRule,
} from "#linux/seccomp.ts";
import { SYSCALLS_I386 } from "#linux/syscall-table/i386.ts";
import { SYSCALLS_X32 } from "#linux/syscall-table/x32.ts";
import { SYSCALLS_X86_64 } from "#linux/syscall-table/x86-64.ts";
import { parseSeccompProfile } from "#oci/seccomp-profile.ts";
import { runFilter, verifyProgram } from "../../support/classic-bpf.ts";

const X86_64 = 0xc000_003e;
const I386 = 0x4000_0003;
const AARCH64 = 0xc000_00b7;
const X32_BIT = 0x4000_0000;
const ALLOW = 0x7fff_0000;
const ERRNO = 0x0005_0000;
const KILL_PROCESS = 0x8000_0000;
const ENOSYS = 38;

function number(name: string): number {
  return SYSCALLS_X86_64.get(name) ?? -1;
}

function profile(rules: SeccompRule[], more: Partial<SeccompProfile> = {}): SeccompProfile {
  return { defaultAction: "SCMP_ACT_ERRNO", architectures: [], flags: [], rules, ...more };
}

function rule(names: string[], action: string, args: SeccompArgument[] = [], errnoRet?: number): SeccompRule {
  return { names, action, args, errnoRet };
}

function arg(index: number, op: string, value: bigint, valueTwo = 0n): SeccompArgument {
  return { index, op: `SCMP_CMP_${op}`, value, valueTwo };
}

/** What the program of a profile answers to x86-64's call `name`. */
function answer(compiled: Uint8Array, name: string, args: bigint[] = []): number {
  return runFilter(compiled, { arch: X86_64, number: number(name), args }).action;
}

function compile(given: SeccompProfile): Uint8Array {
  const { program } = compileSeccomp(given);
  verifyProgram(program);
  return program;
}

describe("compileSeccomp(): actions", () => {
  const cases: [action: string, errnoRet: number | undefined, value: number][] = [
    ["SCMP_ACT_KILL", undefined, 0],
    ["SCMP_ACT_KILL_THREAD", undefined, 0],
    ["SCMP_ACT_KILL_PROCESS", undefined, KILL_PROCESS],
    ["SCMP_ACT_TRAP", undefined, 0x0003_0000],
    ["SCMP_ACT_ERRNO", undefined, ERRNO | 1],
    ["SCMP_ACT_ERRNO", 13, ERRNO | 13],
    ["SCMP_ACT_ERRNO", 0, ERRNO],
    ["SCMP_ACT_TRACE", 7, 0x7ff0_0007],
    ["SCMP_ACT_LOG", undefined, 0x7ffc_0000],
    ["SCMP_ACT_ALLOW", undefined, ALLOW],
  ];
  test.each(cases)("%s with errno %p", (action, errnoRet, value) => {
    const program = compile(
      profile([rule(["mkdir"], action, [], errnoRet)], {
        defaultAction: action === "SCMP_ACT_ALLOW" ? "SCMP_ACT_KILL" : "SCMP_ACT_ALLOW",
      }),
    );
    expect(answer(program, "mkdir")).toBe(value);
    expect(answer(program, "rmdir")).toBe(action === "SCMP_ACT_ALLOW" ? 0 : ALLOW);
  });

  test("SCMP_ACT_NOTIFY is refused: nobody would answer", () => {
    expect(() => compileSeccomp(profile([rule(["mkdir"], "SCMP_ACT_NOTIFY")]))).toThrow(
      '"SCMP_ACT_NOTIFY" is not supported',
    );
  });

  test.each([
    [profile([rule(["mkdir"], "SCMP_ACT_MAYBE")]), 'action "SCMP_ACT_MAYBE" is unknown'],
    [profile([], { defaultAction: "constructor" }), 'action "constructor" is unknown'],
    [profile([rule(["mkdir"], "SCMP_ACT_ERRNO", [], 4096)]), "errno 4096 is not within 0 to 4095"],
    [profile([rule(["mkdir"], "SCMP_ACT_ALLOW", [arg(6, "EQ", 0n)])]), "a call has no argument 6"],
    [
      profile([rule(["mkdir"], "SCMP_ACT_ALLOW", [arg(0, "LIKE", 0n)])]),
      'comparison "SCMP_CMP_LIKE" is unknown',
    ],
    [
      profile([], { flags: ["SECCOMP_FILTER_FLAG_NEW_LISTENER"] }),
      'flag "SECCOMP_FILTER_FLAG_NEW_LISTENER" is unknown',
    ],
  ])("refuses what it does not know (%#)", (given, message) => {
    expect(() => compileSeccomp(given)).toThrow(message);
  });

  test("flags become bits", () => {
    const flags = ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"];
    expect(compileSeccomp(profile([], { flags })).flags).toBe(7);
  });
});

describe("compileSeccomp(): architectures", () => {
  const rules = [rule(["mkdir", "socket"], "SCMP_ACT_ALLOW")];

  test("what is not listed is killed", () => {
    const program = compile(profile(rules));
    expect(runFilter(program, { arch: I386, number: SYSCALLS_I386.get("mkdir") ?? -1 }).action).toBe(
      KILL_PROCESS,
    );
    expect(runFilter(program, { arch: AARCH64, number: 34 }).action).toBe(KILL_PROCESS);
    expect(runFilter(program, { arch: X86_64, number: X32_BIT + number("mkdir") }).action).toBe(KILL_PROCESS);
  });

  test("i386 and x32 have their own numbers when listed", () => {
    const program = compile(profile(rules, { architectures: ["SCMP_ARCH_X86", "SCMP_ARCH_X32"] }));
    expect(runFilter(program, { arch: I386, number: SYSCALLS_I386.get("mkdir") ?? -1 }).action).toBe(ALLOW);
    expect(runFilter(program, { arch: I386, number: number("mkdir") }).action).toBe(ERRNO | 1);
    expect(
      runFilter(program, { arch: X86_64, number: X32_BIT + (SYSCALLS_X32.get("mkdir") ?? -1) }).action,
    ).toBe(ALLOW);
    expect(runFilter(program, { arch: X86_64, number: X32_BIT + number("read") }).action).toBe(ERRNO | 1);
  });

  test("socketcall(2) of i386 obeys the rules of the calls it stands for", () => {
    const program = compile(profile(rules, { architectures: ["SCMP_ARCH_X86"] }));
    const socketcall = SYSCALLS_I386.get("socketcall") ?? -1;
    expect(runFilter(program, { arch: I386, number: socketcall, args: [1n] }).action).toBe(ALLOW);
    expect(runFilter(program, { arch: I386, number: socketcall, args: [2n] }).action).toBe(ERRNO | 1);
  });

  test("a number that no table has fails with ENOSYS where the default is an errno", () => {
    const program = compile(profile(rules));
    expect(runFilter(program, { arch: X86_64, number: 100_000 }).action).toBe(ERRNO | ENOSYS);
    expect(runFilter(program, { arch: X86_64, number: -1 }).action).toBe(ERRNO | ENOSYS);
    const killing = compile(profile(rules, { defaultAction: "SCMP_ACT_KILL_PROCESS" }));
    expect(runFilter(killing, { arch: X86_64, number: 100_000 }).action).toBe(KILL_PROCESS);
  });
});

/** The meaning of a comparison, said a second time. */
function holds({ op, value, valueTwo, index }: SeccompArgument, args: readonly bigint[]): boolean {
  const actual = args[index] ?? 0n;
  switch (op) {
    case "SCMP_CMP_NE":
      return actual !== value;
    case "SCMP_CMP_LT":
      return actual < value;
    case "SCMP_CMP_LE":
      return actual <= value;
    case "SCMP_CMP_EQ":
      return actual === value;
    case "SCMP_CMP_GE":
      return actual >= value;
    case "SCMP_CMP_GT":
      return actual > value;
    default:
      return (actual & value) === valueTwo;
  }
}

const interesting = [
  0n,
  1n,
  0x7fff_ffffn,
  0xffff_fffen,
  0xffff_ffffn,
  0x1_0000_0000n,
  0x1_0000_0001n,
  0x7_ffff_ffffn,
  0xffff_ffff_0000_0000n,
  0xffff_ffff_ffff_ffffn,
];

describe("compileSeccomp(): arguments", () => {
  test.each(["NE", "LT", "LE", "EQ", "GE", "GT"])("%s compares all 64 bits, unsigned", (op) => {
    for (const value of interesting) {
      const condition = arg(5, op, value);
      const program = compile(profile([rule(["mkdir"], "SCMP_ACT_ALLOW", [condition])]));
      for (const actual of interesting) {
        const args = [7n, 7n, 7n, 7n, 7n, actual];
        expect(answer(program, "mkdir", args)).toBe(holds(condition, args) ? ALLOW : ERRNO | 1);
      }
    }
  });

  test("MASKED_EQ compares the masked argument", () => {
    for (const mask of interesting) {
      const condition = arg(1, "MASKED_EQ", mask, 0x1_0000_0001n & mask);
      const program = compile(profile([rule(["mkdir"], "SCMP_ACT_ALLOW", [condition])]));
      for (const actual of interesting) {
        const args = [0n, actual];
        expect(answer(program, "mkdir", args)).toBe(holds(condition, args) ? ALLOW : ERRNO | 1);
      }
    }
  });

  test("all conditions of a rule must hold", () => {
    const conditions = [0, 1, 2, 3, 4, 5].map((index) => arg(index, "GE", 0x1_0000_0000n));
    const program = compile(profile([rule(["mkdir"], "SCMP_ACT_ALLOW", conditions)]));
    const high = 0x1_0000_0000n;
    expect(answer(program, "mkdir", [high, high, high, high, high, high])).toBe(ALLOW);
    for (let low = 0; low < 6; low++) {
      const args = [high, high, high, high, high, high].with(low, 0xffff_ffffn);
      expect(answer(program, "mkdir", args)).toBe(ERRNO | 1);
    }
  });

  test("two conditions on one argument are alternatives", () => {
    const program = compile(
      profile([rule(["mkdir"], "SCMP_ACT_ALLOW", [arg(0, "EQ", 1n), arg(0, "EQ", 5n)])]),
    );
    expect([1n, 5n, 3n].map((value) => answer(program, "mkdir", [value]))).toEqual([ALLOW, ALLOW, ERRNO | 1]);
  });

  test("a special case wins over the rule without conditions, wherever it stands", () => {
    const special = rule(["socket"], "SCMP_ACT_ERRNO", [arg(0, "EQ", 38n)], 97);
    const general = rule(["socket"], "SCMP_ACT_ALLOW");
    for (const rules of [
      [special, general],
      [general, special],
    ]) {
      const program = compile(profile(rules));
      expect([38n, 2n].map((family) => answer(program, "socket", [family]))).toEqual([ERRNO | 97, ALLOW]);
    }
  });

  test("among rules with conditions the profile's order counts", () => {
    const program = compile(
      profile([
        rule(["mkdir"], "SCMP_ACT_ERRNO", [arg(0, "GE", 10n)], 2),
        rule(["mkdir"], "SCMP_ACT_LOG", [arg(0, "GE", 5n)]),
      ]),
    );
    expect([12n, 7n, 1n].map((value) => answer(program, "mkdir", [value]))).toEqual([
      ERRNO | 2,
      0x7ffc_0000,
      ERRNO | 1,
    ]);
  });
});

describe("compileSeccomp(): whole programs", () => {
  test("answers every number as the rules say, for random profiles", () => {
    const names = [...SYSCALLS_X86_64.keys()];
    const chosen = ["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_LOG", "SCMP_ACT_KILL_PROCESS"];
    const values = [ALLOW, ERRNO | 1, 0x7ffc_0000, KILL_PROCESS];
    let seed = 20261121;
    const random = (limit: number) => {
      seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
      return Math.floor((seed / 2 ** 32) * limit);
    };
    for (let round = 0; round < 20; round++) {
      const byName = new Map(names.map((name) => [name, random(chosen.length)]));
      const rules = chosen.map((action, index) =>
        rule(
          names.filter((name) => byName.get(name) === index),
          action,
        ),
      );
      const program = compile(profile(rules, { defaultAction: "SCMP_ACT_TRAP" }));
      const wrong = names.filter((name) => answer(program, name) !== values[byName.get(name) ?? -1]);
      expect(wrong).toEqual([]);
    }
  });

  test("more than 4096 instructions are refused", () => {
    const rules = [...SYSCALLS_X86_64.keys()].map((name, index) =>
      rule([name], "SCMP_ACT_ALLOW", [arg(0, "EQ", BigInt(index)), arg(1, "EQ", 1n), arg(2, "EQ", 2n)]),
    );
    expect(() => compileSeccomp(profile(rules))).toThrow("more than 4096");
  });

  test("names that do not exist are passed over, and told unless they only allow", () => {
    const { program, unknownDenied } = compileSeccomp(
      profile([rule(["mkdir", "arm_fadvise64_64"], "SCMP_ACT_ALLOW"), rule(["frobnicate"], "SCMP_ACT_KILL")]),
    );
    expect(answer(program, "mkdir")).toBe(ALLOW);
    expect(unknownDenied).toEqual(["frobnicate"]);
  });
});

describe("the default profile", () => {
  const path = join(import.meta.dir, "../../../config/seccomp/default.json");

  function compileDefault(capabilities: string[]): Uint8Array {
    const parsed = parseSeccompProfile(readFileSync(path, "utf8"), "default", {
      capabilities,
      kernel: "6.1",
    });
    const compiled = compileSeccomp({
      defaultAction: parsed.defaultAction,
      architectures: parsed.architectures ?? [],
      flags: [],
      rules: (parsed.syscalls ?? []).map((entry) => ({
        names: entry.names,
        action: entry.action,
        errnoRet: entry.errnoRet,
        args: (entry.args ?? []).map((given) => ({
          index: given.index,
          op: given.op,
          value: BigInt(given.value),
          valueTwo: BigInt(given.valueTwo ?? 0),
        })),
      })),
    });
    expect(compiled.unknownDenied).toEqual([]);
    verifyProgram(compiled.program);
    return compiled.program;
  }

  test("is small, and decides any call in few steps", () => {
    const program = compileDefault([]);
    expect(program.length / 8).toBeLessThan(400);
    const steps = [...SYSCALLS_X86_64.values()].map(
      (n) => runFilter(program, { arch: X86_64, number: n }).steps,
    );
    expect(Math.max(...steps)).toBeLessThan(40);
  });

  test("allows ordinary calls", () => {
    const program = compileDefault([]);
    for (const name of [
      "read",
      "execve",
      "openat",
      "mmap",
      "socketpair",
      "futex",
      "ptrace",
      "seccomp",
      "capset",
    ]) {
      expect([name, answer(program, name)]).toEqual([name, ALLOW]);
    }
  });

  test("refuses what reaches beyond the container", () => {
    const program = compileDefault([]);
    const refused =
      "mount umount2 move_mount fsopen setns unshare pivot_root bpf perf_event_open keyctl add_key request_key " +
      "kexec_load init_module finit_module reboot swapon userfaultfd io_uring_setup open_by_handle_at chroot acct iopl";
    for (const name of refused.split(" ")) {
      expect(number(name)).toBeGreaterThanOrEqual(0);
      expect([name, answer(program, name)]).toEqual([name, ERRNO | 1]);
    }
  });

  test("clone makes no namespaces, clone3 does not exist, vsock cannot be reached", () => {
    const program = compileDefault([]);
    expect(answer(program, "clone", [17n])).toBe(ALLOW);
    for (const flag of [
      0x2_0000n,
      0x200_0000n,
      0x400_0000n,
      0x800_0000n,
      0x1000_0000n,
      0x2000_0000n,
      0x4000_0000n,
    ]) {
      expect(answer(program, "clone", [17n | flag])).toBe(ERRNO | 1);
    }
    expect(answer(program, "clone3")).toBe(ERRNO | ENOSYS);
    expect(answer(program, "socket", [40n])).toBe(ERRNO | 1);
    expect(answer(program, "socket", [2n])).toBe(ALLOW);
    expect([0n, 8n, 0x4_0000n].map((persona) => answer(program, "personality", [persona]))).toEqual([
      ALLOW,
      ALLOW,
      ERRNO | 1,
    ]);
  });

  test("capabilities open what they are for", () => {
    const admin = compileDefault(["CAP_SYS_ADMIN"]);
    for (const name of ["mount", "setns", "clone3"]) expect(answer(admin, name)).toBe(ALLOW);
    expect(answer(admin, "clone", [17n | 0x1000_0000n])).toBe(ALLOW);
    expect(answer(compileDefault(["CAP_SYS_CHROOT"]), "chroot")).toBe(ALLOW);
    expect(answer(compileDefault(["CAP_SYS_CHROOT"]), "mount")).toBe(ERRNO | 1);
  });
});
