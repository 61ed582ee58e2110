import { describe, expect, test } from "bun:test";
import { compileDeviceRules, type DeviceRule } from "#linux/cgroup/v2/devices.ts";

type Access = { type: "b" | "c"; major: number; minor: number; access: string };

const bits: Readonly<Record<string, number>> = { m: 1, r: 2, w: 4 };

/** Runs a program as RFC 9669 says, for the instructions that device programs have. */
function interpret(program: Uint8Array, context: DataView): number {
  const code = Buffer.from(program);
  const registers = new Array<number>(11).fill(0);
  for (let at = 0, steps = 0; steps < 100_000; at++, steps++) {
    const operation = code.readUInt8(at * 8);
    const destination = code.readUInt8(at * 8 + 1) & 0xf;
    const source = code.readUInt8(at * 8 + 1) >> 4;
    const offset = code.readInt16LE(at * 8 + 2);
    const immediate = code.readInt32LE(at * 8 + 4);
    const value = registers[destination] ?? 0;
    if (operation === 0x61) registers[destination] = context.getUint32(offset, true);
    else if (operation === 0xbc) registers[destination] = registers[source] ?? 0;
    else if (operation === 0x54) registers[destination] = (value & immediate) >>> 0;
    else if (operation === 0x74) registers[destination] = value >>> immediate;
    else if (operation === 0xb7) registers[destination] = immediate;
    else if (operation === 0x16) at += value === immediate >>> 0 ? offset : 0;
    else if (operation === 0x56) at += value !== immediate >>> 0 ? offset : 0;
    else if (operation === 0x95) return registers[0] ?? 0;
    else throw new Error(`unknown instruction ${operation}`);
  }
  throw new Error("the program does not end");
}

function maskOf(access: string): number {
  return [...access].reduce((mask, letter) => mask | (bits[letter] ?? 0), 0);
}

function allows(rules: readonly DeviceRule[], { type, major, minor, access }: Access): boolean {
  const context = new DataView(new ArrayBuffer(12));
  context.setUint32(0, (maskOf(access) << 16) | (type === "b" ? 1 : 2), true);
  context.setUint32(4, major, true);
  context.setUint32(8, minor, true);
  return interpret(compileDeviceRules(rules), context) === 1;
}

/** The meaning of a list of rules, word by word: for each kind of access the last rule that matches decides. */
function meaning(rules: readonly DeviceRule[], { type, major, minor, access }: Access): boolean {
  return [...access].every((letter) => {
    const match = rules.findLast(
      (rule) =>
        (rule.type === "a" ||
          (rule.type === type &&
            (rule.major === undefined || rule.major === major) &&
            (rule.minor === undefined || rule.minor === minor))) &&
        rule.access.includes(letter),
    );
    return match?.allow ?? false;
  });
}

const denyAll: DeviceRule = { allow: false, type: "a", access: "rwm" };
const null_: Access = { type: "c", major: 1, minor: 3, access: "rw" };

describe("compileDeviceRules()", () => {
  test("without rules everything is denied", () => {
    expect(allows([], null_)).toBe(false);
  });

  test("a device that is allowed, and its neighbours", () => {
    const rules: DeviceRule[] = [denyAll, { allow: true, type: "c", major: 1, minor: 3, access: "rw" }];
    expect(allows(rules, null_)).toBe(true);
    expect(allows(rules, { ...null_, access: "m" })).toBe(false);
    expect(allows(rules, { ...null_, access: "rwm" })).toBe(false);
    expect(allows(rules, { ...null_, minor: 4 })).toBe(false);
    expect(allows(rules, { ...null_, type: "b" })).toBe(false);
  });

  test("rights may come from several rules, and be taken back by a later one", () => {
    const read: DeviceRule = { allow: true, type: "c", major: 10, access: "r" };
    const write: DeviceRule = { allow: true, type: "c", minor: 200, access: "w" };
    const tun: Access = { type: "c", major: 10, minor: 200, access: "rw" };
    expect(allows([denyAll, read, write], tun)).toBe(true);
    const back: DeviceRule = { allow: false, type: "c", major: 10, minor: 200, access: "w" };
    expect(allows([denyAll, read, write, back], tun)).toBe(false);
    expect(allows([denyAll, read, write, back], { ...tun, access: "r" })).toBe(true);
  });

  test("numbers of 32 bits are compared whole", () => {
    const rules: DeviceRule[] = [
      { allow: true, type: "b", major: 0xffff_fffe, minor: 0x8000_0000, access: "r" },
    ];
    expect(allows(rules, { type: "b", major: 0xffff_fffe, minor: 0x8000_0000, access: "r" })).toBe(true);
    expect(allows(rules, { type: "b", major: 0xffff_fffe, minor: 0, access: "r" })).toBe(false);
  });

  test("random lists mean what their words say", () => {
    let seed = 4711;
    const random = (below: number) => {
      seed = (seed * 1103515245 + 12345) & 0x7fff_ffff;
      return (seed >> 8) % below;
    };
    const accesses = ["r", "w", "m", "rw", "rm", "wm", "rwm"];
    const randomRule = (): DeviceRule => ({
      allow: random(2) === 0,
      type: (["a", "b", "c"] as const)[random(3)] ?? "a",
      ...(random(3) === 0 ? {} : { major: random(3) }),
      ...(random(3) === 0 ? {} : { minor: random(3) }),
      access: accesses[random(7)] ?? "r",
    });
    for (let round = 0; round < 500; round++) {
      const rules = Array.from({ length: random(8) }, randomRule);
      const access: Access = {
        type: random(2) === 0 ? "b" : "c",
        major: random(3),
        minor: random(3),
        access: accesses[random(7)] ?? "r",
      };
      expect({ rules, access, allowed: allows(rules, access) }).toEqual({
        rules,
        access,
        allowed: meaning(rules, access),
      });
    }
  });

  test("misspelt access and too many rules are refused", () => {
    expect(() => compileDeviceRules([{ allow: true, type: "a", access: "rx" }])).toThrow("as device access");
    expect(() => compileDeviceRules(new Array<DeviceRule>(1025).fill(denyAll))).toThrow("at most 1024");
  });
});
