import { HakoError } from "#base/error.ts";
import {
  type ArchitectureFilter,
  type Comparison,
  type Condition,
  type ConditionalDecision,
  type Decision,
  encodeProgram,
  type Segment,
} from "./seccomp-program.ts";
import { MULTIPLEXERS_I386, SYSCALLS_I386 } from "./syscall-table/i386.ts";
import type { SyscallTable } from "./syscall-table/syscall-table.ts";
import { SYSCALLS_X32 } from "./syscall-table/x32.ts";
import { SYSCALLS_X86_64 } from "./syscall-table/x86-64.ts";

/** `linux.seccomp` of the OCI runtime specification. */
export interface SeccompProfile {
  /** `SCMP_ACT_…`. */
  readonly defaultAction: string;
  readonly defaultErrnoRet?: number | undefined;
  /** `SCMP_ARCH_…`; the native one counts as listed. */
  readonly architectures: readonly string[];
  /** `SECCOMP_FILTER_FLAG_…`. */
  readonly flags: readonly string[];
  readonly rules: readonly SeccompRule[];
}

export interface SeccompRule {
  readonly names: readonly string[];
  readonly action: string;
  /** The errno of SCMP_ACT_ERRNO, the message of SCMP_ACT_TRACE; EPERM without it. */
  readonly errnoRet?: number | undefined;
  readonly args: readonly SeccompArgument[];
}

export interface SeccompArgument {
  readonly index: number;
  readonly value: bigint;
  readonly valueTwo: bigint;
  /** `SCMP_CMP_…`. */
  readonly op: string;
}

export interface SeccompFilter {
  /** struct sock_filter[] for seccomp(2). */
  readonly program: Uint8Array;
  /** SECCOMP_FILTER_FLAG_* bits. */
  readonly flags: number;
  /** Names, in rules that do not just allow, that no listed architecture has: worth a warning. */
  readonly unknownDenied: readonly string[];
}

const EPERM = 1;
const ENOSYS = 38;
const MAX_ERRNO = 4095;
const MAX_RULES = 4096;

// SECCOMP_RET_* (linux/seccomp.h)
const RET_KILL_PROCESS = 0x8000_0000;
const RET_ERRNO = 0x0005_0000;
const RET_TRACE = 0x7ff0_0000;
const RET_ALLOW = 0x7fff_0000;
/** SECCOMP_RET_ACTION, without the top bit that only SECCOMP_RET_KILL_PROCESS has. */
const ACTION_MASK = 0x7fff_0000;
const actions: Readonly<Record<string, number>> = {
  SCMP_ACT_KILL: 0,
  SCMP_ACT_KILL_THREAD: 0,
  SCMP_ACT_KILL_PROCESS: RET_KILL_PROCESS,
  SCMP_ACT_TRAP: 0x0003_0000,
  SCMP_ACT_ERRNO: RET_ERRNO,
  SCMP_ACT_TRACE: RET_TRACE,
  SCMP_ACT_LOG: 0x7ffc_0000,
  SCMP_ACT_ALLOW: RET_ALLOW,
};

const flagBits: Readonly<Record<string, number>> = {
  SECCOMP_FILTER_FLAG_TSYNC: 1,
  SECCOMP_FILTER_FLAG_LOG: 2,
  SECCOMP_FILTER_FLAG_SPEC_ALLOW: 4,
};

const comparisons: Readonly<Record<string, Comparison>> = {
  SCMP_CMP_NE: "NE",
  SCMP_CMP_LT: "LT",
  SCMP_CMP_LE: "LE",
  SCMP_CMP_EQ: "EQ",
  SCMP_CMP_GE: "GE",
  SCMP_CMP_GT: "GT",
  SCMP_CMP_MASKED_EQ: "MASKED_EQ",
};

// AUDIT_ARCH_* (linux/audit.h)
const AUDIT_X86_64 = 0xc000_003e;
const AUDIT_I386 = 0x4000_0003;
/** __X32_SYSCALL_BIT (asm/unistd.h): x32 numbers come with the architecture of x86-64. */
const X32_BIT = 0x4000_0000;
const NUMBER_END = 0x1_0000_0000;

/** A rule for one call: an action, and conditions under which alone it counts. */
interface Entry {
  readonly action: number;
  readonly conditions: readonly Condition[];
}

/** Entries by number, for one kind of entry to the kernel. */
type Entries = Map<number, Entry[]>;

/**
 * Compiles a profile into a classic BPF program.
 *
 * - A call of an architecture that is not listed kills the process.
 * - Of several rules for one call those with conditions are tried first, in the profile's order, then the last
 *   one without. (libseccomp lets one without conditions override the others; a profile that denies a special
 *   case of an allowed call would then deny nothing.)
 * - Conditions of one rule must all hold; but where two are for the same argument each is a rule of its own, as in
 *   runc and crun.
 * - A call newer than our tables fails with ENOSYS where the default is an errno: C libraries then use an older one.
 *
 * Throws INVALID_ARGUMENT for anything unknown, UNIMPLEMENTED for SCMP_ACT_NOTIFY.
 */
export function compileSeccomp(profile: SeccompProfile): SeccompFilter {
  if (profile.rules.length > MAX_RULES) throw invalid(`it has more than ${MAX_RULES} rules`);
  const otherwise = encodeAction(profile.defaultAction, profile.defaultErrnoRet);
  const architectures = new Set(["SCMP_ARCH_X86_64", ...profile.architectures]);
  const known = new Set<string>();
  const rules = profile.rules.map(encodeRule);
  const collect = (table: SyscallTable) => collectEntries(rules, table, known);
  const filters: ArchitectureFilter[] = [
    nativeFilter(collect, architectures.has("SCMP_ARCH_X32"), otherwise),
  ];
  if (architectures.has("SCMP_ARCH_X86")) {
    const entries = collect(SYSCALLS_I386);
    addMultiplexers(entries);
    filters.push({
      audit: AUDIT_I386,
      segments: makeSegments(entries, SYSCALLS_I386, otherwise, 0, NUMBER_END),
    });
  }
  return {
    program: encodeProgram(filters, RET_KILL_PROCESS),
    flags: profile.flags.reduce((bits, flag) => bits | lookup(flagBits, flag, "flag"), 0),
    unknownDenied: profile.rules
      .filter((rule) => rule.action !== "SCMP_ACT_ALLOW")
      .flatMap((rule) => rule.names.filter((name) => !known.has(name))),
  };
}

/** x86-64, and above its numbers x32: listed or not, and -1, which a tracer leaves of a call that it has undone. */
function nativeFilter(
  collect: (table: SyscallTable) => Entries,
  withX32: boolean,
  otherwise: number,
): ArchitectureFilter {
  const segments = makeSegments(collect(SYSCALLS_X86_64), SYSCALLS_X86_64, otherwise, 0, X32_BIT);
  const x32: Segment[] = withX32
    ? makeSegments(collect(SYSCALLS_X32), SYSCALLS_X32, otherwise, X32_BIT, NUMBER_END - 1)
    : [{ start: X32_BIT, decision: RET_KILL_PROCESS }];
  return {
    audit: AUDIT_X86_64,
    segments: [...segments, ...x32, { start: NUMBER_END - 1, decision: unknownCall(otherwise) }],
  };
}

/** A rule for any architecture. */
interface EncodedRule {
  readonly names: readonly string[];
  readonly entries: readonly Entry[];
}

function encodeRule({ names, action, errnoRet, args }: SeccompRule): EncodedRule {
  const encoded = encodeAction(action, errnoRet);
  const entries = alternativesOf(args.map(encodeCondition)).map((conditions) => ({
    action: encoded,
    conditions,
  }));
  return { names, entries };
}

/** The rules' entries for the calls that a table has; adds these calls' names to `known`. */
function collectEntries(rules: readonly EncodedRule[], table: SyscallTable, known: Set<string>): Entries {
  const all: Entries = new Map();
  for (const { names, entries } of rules) {
    for (const name of names) {
      const number = table.get(name);
      if (number === undefined) continue;
      known.add(name);
      const list = all.get(number);
      if (list) list.push(...entries);
      else all.set(number, [...entries]);
    }
  }
  return all;
}

function alternativesOf(conditions: readonly Condition[]): (readonly Condition[])[] {
  const indexes = new Set(conditions.map(({ index }) => index));
  return indexes.size === conditions.length ? [conditions] : conditions.map((condition) => [condition]);
}

/**
 * What a rule says of a call without looking at its arguments goes for the old way to make it, too. Conditions
 * cannot: there the arguments lie in memory, which a filter cannot read.
 */
function addMultiplexers(entries: Entries): void {
  for (const { name, mask, calls } of MULTIPLEXERS_I386) {
    const number = SYSCALLS_I386.get(name);
    if (number === undefined) continue;
    const cases: Entry[] = [];
    for (const [call, value] of calls) {
      const direct = entries
        .get(SYSCALLS_I386.get(call) ?? -1)
        ?.findLast((entry) => entry.conditions.length === 0);
      const condition: Condition = { index: 0, op: "MASKED_EQ", value: mask, valueTwo: BigInt(value) };
      if (direct) cases.push({ action: direct.action, conditions: [condition] });
    }
    if (cases.length > 0) entries.set(number, [...cases, ...(entries.get(number) ?? [])]);
  }
}

/** Covers the numbers from `base` to `end`; neighbours with the same decision become one segment. */
function makeSegments(
  entries: Entries,
  table: SyscallTable,
  otherwise: number,
  base: number,
  end: number,
): Segment[] {
  const segments: Segment[] = [];
  const conditional = new Map<string, Decision>();
  let last: Decision | undefined;
  const add = (number: number, decision: Decision) => {
    if (decision !== last) segments.push({ start: base + number, decision });
    last = decision;
  };
  let tableEnd = 0;
  for (const number of table.values()) tableEnd = Math.max(tableEnd, number + 1);
  for (let number = 0; number < tableEnd; number++) {
    const decision = decide(entries.get(number), otherwise);
    if (typeof decision === "number") {
      add(number, decision);
      continue;
    }
    const key = JSON.stringify(decision, (_, value) => (typeof value === "bigint" ? `${value}n` : value));
    const known = conditional.get(key);
    if (known === undefined) conditional.set(key, decision);
    add(number, known ?? decision);
  }
  if (base + tableEnd < end) add(tableEnd, unknownCall(otherwise));
  return segments;
}

function decide(entries: readonly Entry[] | undefined, otherwise: number): Decision {
  // Nearly every call has no rule, or one without conditions; this runs cold at each start of a container.
  const only = entries?.[0];
  if (entries === undefined || only === undefined) return otherwise;
  if (entries.length === 1 && only.conditions.length === 0) return only.action;
  const last = entries.findLast((entry) => entry.conditions.length === 0)?.action ?? otherwise;
  const cases = entries.filter((entry) => entry.conditions.length > 0);
  if (cases.every((entry) => entry.action === last)) return last;
  const decision: ConditionalDecision = { cases, otherwise: last };
  return decision;
}

function unknownCall(otherwise: number): number {
  return (otherwise & ACTION_MASK) === RET_ERRNO ? RET_ERRNO | ENOSYS : otherwise;
}

function encodeAction(name: string, errnoRet: number = EPERM): number {
  if (name === "SCMP_ACT_NOTIFY") {
    throw new HakoError("UNIMPLEMENTED", `Cannot compile seccomp filter: "${name}" is not supported`);
  }
  const action = lookup(actions, name, "action");
  if (action !== RET_ERRNO && action !== RET_TRACE) return action;
  if (!Number.isInteger(errnoRet) || errnoRet < 0 || errnoRet > MAX_ERRNO) {
    throw invalid(`errno ${errnoRet} is not within 0 to ${MAX_ERRNO}`);
  }
  return action + errnoRet;
}

function encodeCondition({ index, value, valueTwo, op }: SeccompArgument): Condition {
  if (!Number.isInteger(index) || index < 0 || index > 5) throw invalid(`a call has no argument ${index}`);
  return { index, value, valueTwo, op: lookup(comparisons, op, "comparison") };
}

function lookup<T>(table: Readonly<Record<string, T>>, name: string, what: string): T {
  const value = Object.hasOwn(table, name) ? table[name] : undefined;
  if (value === undefined) throw invalid(`${what} "${name}" is unknown`);
  return value;
}

function invalid(problem: string): HakoError {
  return new HakoError("INVALID_ARGUMENT", `Cannot compile seccomp filter: ${problem}`);
}
