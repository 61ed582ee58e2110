import { HakoError } from "#base/error.ts";
import { check } from "#sys/errno.ts";
import { Fd, O, openFd } from "#sys/fd.ts";
import { addressOf } from "#sys/native.ts";
import { SYS, syscall } from "#sys/syscall.ts";
import { BpfProgram } from "./bpf.ts";

/** Who may do what with which devices; of the rules that match, the last one decides, for each kind of access. */
export interface DeviceRule {
  readonly allow: boolean;
  /** "a" is every device, whatever the numbers say. */
  readonly type: "a" | "b" | "c";
  /** Undefined stands for every number. */
  readonly major?: number;
  readonly minor?: number;
  /** Some of "r" (open to read), "w" (open to write) and "m" (make a node). */
  readonly access: string;
}

/** More would only be an attack on the verifier's patience. */
const RULES_MAX = 1024;

// struct bpf_cgroup_dev_ctx and BPF_DEVCG_* (linux/bpf.h)
const CONTEXT_ACCESS_TYPE = 0;
const CONTEXT_MAJOR = 4;
const CONTEXT_MINOR = 8;
const TYPE_BLOCK = 1;
const TYPE_CHARACTER = 2;
const ACCESS = { m: 1, r: 2, w: 4 } as const;

// bpf(2) commands and constants (linux/bpf.h)
const BPF_PROG_LOAD = 5;
const BPF_PROG_ATTACH = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE = 15;
const BPF_CGROUP_DEVICE = 6;
const BPF_F_ALLOW_MULTI = 2;
const BPF_F_REPLACE = 4;
const ATTRIBUTE_SIZE = 128;

const registers = { context: 1, type: 2, access: 3, major: 4, minor: 5, remaining: 6, scratch: 7 } as const;

function accessMask(rule: DeviceRule): number {
  let mask = 0;
  for (const letter of rule.access) {
    if (letter !== "r" && letter !== "w" && letter !== "m") {
      throw new HakoError("INVALID_ARGUMENT", `Cannot use ${JSON.stringify(rule.access)} as device access`);
    }
    mask |= ACCESS[letter];
  }
  return mask;
}

/**
 * A BPF program that answers 1 (allow) or 0 (deny) for one access. It walks the rules from the last to the first
 * and keeps the kinds of access that no rule has allowed yet; what no rule names is denied.
 */
export function compileDeviceRules(rules: readonly DeviceRule[]): Uint8Array {
  if (rules.length > RULES_MAX) {
    throw new HakoError("INVALID_ARGUMENT", `Cannot use ${rules.length} device rules: at most ${RULES_MAX}`);
  }
  const r = registers;
  const program = new BpfProgram();
  // access_type is (access << 16) | type.
  program.loadWord(r.type, r.context, CONTEXT_ACCESS_TYPE);
  program.move(r.remaining, r.type);
  program.and(r.type, 0xffff);
  program.shiftRight(r.remaining, 16);
  program.loadWord(r.major, r.context, CONTEXT_MAJOR);
  program.loadWord(r.minor, r.context, CONTEXT_MINOR);
  for (const rule of rules.toReversed()) addRule(program, rule);
  program.exit(0);
  return program.encode();
}

function addRule(program: BpfProgram, rule: DeviceRule): void {
  const r = registers;
  const mask = accessMask(rule);
  const next = program.label();
  if (rule.type !== "a") {
    program.jumpUnlessEqual(r.type, rule.type === "b" ? TYPE_BLOCK : TYPE_CHARACTER, next);
    if (rule.major !== undefined) program.jumpUnlessEqual(r.major, rule.major, next);
    if (rule.minor !== undefined) program.jumpUnlessEqual(r.minor, rule.minor, next);
  }
  if (rule.allow) {
    program.and(r.remaining, ~mask);
    program.jumpUnlessEqual(r.remaining, 0, next);
    program.exit(1);
  } else {
    program.move(r.scratch, r.remaining);
    program.and(r.scratch, mask);
    program.jumpIfEqual(r.scratch, 0, next);
    program.exit(0);
  }
  program.place(next);
}

function loadProgram(instructions: Uint8Array): Fd {
  const license = Buffer.from("Apache-2.0\0");
  const attribute = Buffer.alloc(ATTRIBUTE_SIZE);
  attribute.writeUInt32LE(BPF_PROG_TYPE_CGROUP_DEVICE, 0);
  attribute.writeUInt32LE(instructions.length / 8, 4);
  attribute.writeBigUInt64LE(BigInt(addressOf(instructions)), 8);
  attribute.writeBigUInt64LE(BigInt(addressOf(license)), 16);
  attribute.write("hako_devices", 48, 15, "latin1");
  const fd = syscall(SYS.bpf, BPF_PROG_LOAD, attribute, ATTRIBUTE_SIZE);
  // Both buffers must live until the call is over.
  if (license.length === 0 || instructions.length === 0)
    throw new HakoError("INTERNAL", "Empty device program");
  return new Fd(check(fd, "Cannot load the device rules into the kernel"));
}

/** The device rules in force on one cgroup. */
export class DeviceFilter implements Disposable {
  #program: Fd | undefined;

  /**
   * Puts the rules in force for all processes of the cgroup, in place of earlier ones of this filter; there is no
   * moment without either.
   */
  set(directory: string, rules: readonly DeviceRule[]): void {
    using cgroup = openFd(directory, O.RDONLY | O.DIRECTORY);
    const program = loadProgram(compileDeviceRules(rules));
    const attribute = Buffer.alloc(ATTRIBUTE_SIZE);
    attribute.writeUInt32LE(cgroup.number, 0);
    attribute.writeUInt32LE(program.number, 4);
    attribute.writeUInt32LE(BPF_CGROUP_DEVICE, 8);
    attribute.writeUInt32LE(BPF_F_ALLOW_MULTI | (this.#program ? BPF_F_REPLACE : 0), 12);
    attribute.writeUInt32LE(this.#program?.number ?? 0, 16);
    const result = syscall(SYS.bpf, BPF_PROG_ATTACH, attribute, ATTRIBUTE_SIZE);
    if (result < 0) program.close();
    check(result, `Cannot put device rules on cgroup "${directory}"`);
    this.#program?.close();
    this.#program = program;
  }

  /** Forgets the program; it stays in force until its cgroup is removed. */
  [Symbol.dispose](): void {
    this.#program?.close();
  }
}
