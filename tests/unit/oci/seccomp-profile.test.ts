import { describe, expect, test } from "bun:test";
import { parseSeccompProfile } from "#oci/seccomp-profile.ts";

const context = { capabilities: ["CAP_CHOWN", "CAP_SYS_PTRACE"], kernel: "6.1" };

function parse(profile: object) {
  return parseSeccompProfile(JSON.stringify({ defaultAction: "SCMP_ACT_ERRNO", ...profile }), "p", context);
}

const rule = { names: ["ptrace"], action: "SCMP_ACT_ALLOW" };

describe("parseSeccompProfile()", () => {
  test("reads the runtime specification's form", () => {
    const syscalls = [
      { ...rule, args: [{ index: 0, value: 1, valueTwo: 2, op: "SCMP_CMP_MASKED_EQ" }], errnoRet: 38 },
    ];
    expect(
      parse({
        architectures: ["SCMP_ARCH_X86_64"],
        flags: ["SECCOMP_FILTER_FLAG_LOG"],
        defaultErrnoRet: 1,
        syscalls,
      }),
    ).toEqual({
      defaultAction: "SCMP_ACT_ERRNO",
      defaultErrnoRet: 1,
      architectures: ["SCMP_ARCH_X86_64"],
      flags: ["SECCOMP_FILTER_FLAG_LOG"],
      syscalls,
    });
  });

  test.each([
    [{ includes: { caps: ["CAP_SYS_PTRACE"] } }, true],
    [{ includes: { caps: ["CAP_SYS_PTRACE", "CAP_BPF"] } }, false],
    [{ excludes: { caps: ["CAP_SYS_PTRACE"] } }, false],
    [{ excludes: { caps: ["CAP_BPF"] } }, true],
    [{ includes: { minKernel: "4.8" } }, true],
    [{ includes: { minKernel: "6.2" } }, false],
    [{ excludes: { minKernel: "6.1" } }, false],
    [{ includes: { arches: ["amd64", "x32"] } }, true],
    [{ includes: { arches: ["arm64"] } }, false],
    [{ excludes: { arches: ["arm64"] } }, true],
    [{ includes: {}, excludes: {} }, true],
    [{ includes: null }, true],
  ])("settles docker's conditions: %p", (condition, applies) => {
    const syscalls = parse({ syscalls: [{ ...rule, ...condition }] }).syscalls;
    expect(syscalls).toEqual(applies ? [rule] : []);
  });

  test("fills in the architectures that the guest's kernel runs", () => {
    expect(parse({}).architectures).toEqual(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]);
  });

  test("takes docker's older spelling of a single name", () => {
    expect(parse({ syscalls: [{ name: "read", action: "SCMP_ACT_ALLOW" }] }).syscalls?.[0]?.names).toEqual([
      "read",
    ]);
  });

  test.each([
    ["{", "is not JSON"],
    ["[]", "is not a JSON object"],
    ["{}", '"defaultAction" is not an action'],
    ['{"defaultAction":"SCMP_ACT_ALLOW","syscalls":{}}', '"syscalls" is not a list'],
    ['{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[1]}', "syscalls[0]: not an object"],
    ['{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":[]}]}', '"names" is not a list'],
    [
      '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"action":"ALLOW"}]}',
      '"action" is not an action',
    ],
    [
      '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"action":"SCMP_ACT_ALLOW","args":[{"index":9}]}]}',
      '"index" of an argument is not 0 to 5',
    ],
    [
      '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"action":"SCMP_ACT_ALLOW","includes":{"moon":"full"}}]}',
      'condition "moon" is not understood',
    ],
  ])("says what is wrong with %p", (text, problem) => {
    expect(() => parseSeccompProfile(text, "p", context)).toThrow(problem);
  });
});
