import { HakoError } from "#base/error.ts";

/** One instruction of classic BPF (struct sock_filter, linux/filter.h); jumps count the instructions skipped. */
interface Instruction {
  readonly code: number;
  readonly jt: number;
  readonly jf: number;
  readonly k: number;
}

/** An action of a filter (SECCOMP_RET_*), or what to do when one of several sets of argument conditions holds. */
export type Decision = number | ConditionalDecision;

export interface ConditionalDecision {
  /** Tried in this order; all conditions of a case must hold. */
  readonly cases: readonly { readonly conditions: readonly Condition[]; readonly action: number }[];
  readonly otherwise: number;
}

export type Comparison = "NE" | "LT" | "LE" | "EQ" | "GE" | "GT" | "MASKED_EQ";

/** A comparison of a whole 64-bit argument, unsigned. For MASKED_EQ `value` is the mask, `valueTwo` the result. */
export interface Condition {
  /** 0 to 5. */
  readonly index: number;
  readonly op: Comparison;
  readonly value: bigint;
  readonly valueTwo: bigint;
}

/** The decision for all numbers from `start` up to the next segment's. */
export interface Segment {
  readonly start: number;
  readonly decision: Decision;
}

/** Segments that cover all 32-bit numbers, for one value of seccomp_data.arch. */
export interface ArchitectureFilter {
  /** AUDIT_ARCH_* (linux/audit.h). */
  readonly audit: number;
  readonly segments: readonly Segment[];
}

// linux/bpf_common.h
const LOAD_WORD = 0x20;
const JUMP = 0x05;
const JUMP_EQUAL = 0x15;
const JUMP_GREATER = 0x25;
const JUMP_GREATER_EQUAL = 0x35;
const AND = 0x54;
const RETURN = 0x06;

// struct seccomp_data (linux/seccomp.h): i32 nr, u32 arch, u64 instruction pointer, u64 args[6]
const NUMBER_OFFSET = 0;
const ARCHITECTURE_OFFSET = 4;
const ARGUMENTS_OFFSET = 16;

const INSTRUCTION_SIZE = 8;
/** BPF_MAXINSNS. */
const PROGRAM_MAX = 4096;
/** A conditional jump skips at most so many instructions. */
const SHORT_JUMP_MAX = 255;

/**
 * The program for the kernel: a check of the architecture, then for each a binary search over its segments, whose
 * leaves return an action or jump to the conditions behind the tree. `otherwise` is the action for architectures
 * without a filter. Throws INVALID_ARGUMENT over 4096 instructions.
 */
export function encodeProgram(filters: readonly ArchitectureFilter[], otherwise: number): Uint8Array {
  const program: Instruction[] = [load(ARCHITECTURE_OFFSET)];
  for (const filter of filters) {
    const body = encodeFilter(filter.segments);
    program.push(jump(JUMP_EQUAL, filter.audit, 1, 0), jumpAlways(body.length), ...body);
  }
  program.push(ret(otherwise));
  if (program.length > PROGRAM_MAX) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Cannot compile seccomp filter: it has ${program.length} instructions, more than ${PROGRAM_MAX}`,
    );
  }
  return encodeInstructions(program);
}

/** A leaf of the tree that goes on to a block of conditions; becomes a jump once the block's place is known. */
interface BlockReference {
  readonly block: ConditionalDecision;
}

/** Loads the number, then the tree, then each distinct set of conditions once. */
function encodeFilter(segments: readonly Segment[]): Instruction[] {
  const items = [load(NUMBER_OFFSET), ...encodeTree(segments)];
  const addresses = new Map<ConditionalDecision, number>();
  const blocks: Instruction[] = [];
  for (const item of items) {
    if (!("block" in item) || addresses.has(item.block)) continue;
    addresses.set(item.block, items.length + blocks.length);
    blocks.push(...encodeConditional(item.block));
  }
  const resolve = (item: Instruction | BlockReference, index: number) =>
    "block" in item ? jumpAlways((addresses.get(item.block) ?? 0) - index - 1) : item;
  return [...items.map(resolve), ...blocks];
}

/** A balanced search tree: at each node the number is compared with the first one of the upper half. */
function encodeTree(segments: readonly Segment[]): (Instruction | BlockReference)[] {
  const middle = segments[segments.length >> 1];
  if (!middle) return [];
  if (segments.length === 1) {
    const { decision } = middle;
    return [typeof decision === "number" ? ret(decision) : { block: decision }];
  }
  const lower = encodeTree(segments.slice(0, segments.length >> 1));
  const upper = encodeTree(segments.slice(segments.length >> 1));
  const node =
    lower.length <= SHORT_JUMP_MAX
      ? [jump(JUMP_GREATER_EQUAL, middle.start, lower.length, 0)]
      : [jump(JUMP_GREATER_EQUAL, middle.start, 0, 1), jumpAlways(lower.length)];
  return [...node, ...lower, ...upper];
}

function encodeConditional(decision: ConditionalDecision): Instruction[] {
  return [
    ...decision.cases.flatMap((entry) => encodeCase(entry.conditions, entry.action)),
    ret(decision.otherwise),
  ];
}

/** Returns the action if all conditions hold, otherwise runs on behind it. */
function encodeCase(conditions: readonly Condition[], action: number): Instruction[] {
  const reversed = [[ret(action)]];
  let length = 1;
  for (const condition of conditions.toReversed()) {
    const instructions = encodeCondition(condition, length);
    reversed.push(instructions);
    length += instructions.length;
  }
  return reversed.toReversed().flat();
}

/** Runs on when the condition holds, otherwise skips `fail` instructions more. Upper halves decide first. */
function encodeCondition({ index, op, value, valueTwo }: Condition, fail: number): Instruction[] {
  const low = ARGUMENTS_OFFSET + 8 * index;
  const high = low + 4;
  const [valueHigh, valueLow] = halves(value);
  /** The upper halves alone give the answer when they differ: `greater` and `less` are the jumps then. */
  const ordered = (greater: number, less: number, code: number, jt: number, jf: number) => [
    load(high),
    jump(JUMP_GREATER, valueHigh, greater + 3, 0),
    jump(JUMP_EQUAL, valueHigh, 0, less + 2),
    load(low),
    jump(code, valueLow, jt, jf),
  ];
  switch (op) {
    case "EQ":
      return [
        load(high),
        jump(JUMP_EQUAL, valueHigh, 0, fail + 2),
        load(low),
        jump(JUMP_EQUAL, valueLow, 0, fail),
      ];
    case "NE":
      return [load(high), jump(JUMP_EQUAL, valueHigh, 0, 2), load(low), jump(JUMP_EQUAL, valueLow, fail, 0)];
    case "GT":
      return ordered(0, fail, JUMP_GREATER, 0, fail);
    case "GE":
      return ordered(0, fail, JUMP_GREATER_EQUAL, 0, fail);
    case "LT":
      return ordered(fail, 0, JUMP_GREATER_EQUAL, fail, 0);
    case "LE":
      return ordered(fail, 0, JUMP_GREATER, fail, 0);
    case "MASKED_EQ": {
      const [resultHigh, resultLow] = halves(valueTwo);
      return [
        load(high),
        and(valueHigh),
        jump(JUMP_EQUAL, resultHigh, 0, fail + 3),
        load(low),
        and(valueLow),
        jump(JUMP_EQUAL, resultLow, 0, fail),
      ];
    }
  }
}

function halves(value: bigint): [high: number, low: number] {
  return [Number((value >> 32n) & 0xffff_ffffn), Number(value & 0xffff_ffffn)];
}

function load(offset: number): Instruction {
  return { code: LOAD_WORD, jt: 0, jf: 0, k: offset };
}

function and(mask: number): Instruction {
  return { code: AND, jt: 0, jf: 0, k: mask };
}

function ret(action: number): Instruction {
  return { code: RETURN, jt: 0, jf: 0, k: action };
}

function jump(code: number, k: number, jt: number, jf: number): Instruction {
  return { code, jt, jf, k };
}

function jumpAlways(skip: number): Instruction {
  return { code: JUMP, jt: 0, jf: 0, k: skip };
}

/** struct sock_filter: u16 code, u8 jt, u8 jf, u32 k. */
function encodeInstructions(program: readonly Instruction[]): Uint8Array {
  const bytes = Buffer.alloc(program.length * INSTRUCTION_SIZE);
  program.forEach(({ code, jt, jf, k }, index) => {
    const offset = index * INSTRUCTION_SIZE;
    bytes.writeUInt16LE(code, offset);
    bytes.writeUInt8(jt, offset + 2);
    bytes.writeUInt8(jf, offset + 3);
    bytes.writeUInt32LE(k, offset + 4);
  });
  return bytes;
}
