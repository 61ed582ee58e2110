import { HakoError } from "#base/error.ts";

/** A place in a program that jumps refer to before it is known. */
export interface BpfLabel {
  position: number | undefined;
}

interface Instruction {
  readonly code: number;
  readonly destination: number;
  readonly source: number;
  readonly offset: number;
  readonly immediate: number;
  readonly target?: BpfLabel;
}

// Instruction classes and modes (linux/bpf_common.h, linux/bpf.h, RFC 9669)
const LDX_MEM_W = 0x61;
const MOV32_REGISTER = 0xbc;
const AND32_IMMEDIATE = 0x54;
const RSH32_IMMEDIATE = 0x74;
const MOV64_IMMEDIATE = 0xb7;
const JEQ32_IMMEDIATE = 0x16;
const JNE32_IMMEDIATE = 0x56;
const EXIT = 0x95;
const RESULT = 0;

/** Builds an eBPF program (RFC 9669) of the few instructions that device rules need. Words are 32 bits wide. */
export class BpfProgram {
  readonly #instructions: Instruction[] = [];

  #add(code: number, fields: Partial<Instruction>): void {
    this.#instructions.push({ code, destination: 0, source: 0, offset: 0, immediate: 0, ...fields });
  }

  /** destination = *(u32 *)(base + offset) */
  loadWord(destination: number, base: number, offset: number): void {
    this.#add(LDX_MEM_W, { destination, source: base, offset });
  }

  move(destination: number, source: number): void {
    this.#add(MOV32_REGISTER, { destination, source });
  }

  and(destination: number, immediate: number): void {
    this.#add(AND32_IMMEDIATE, { destination, immediate });
  }

  shiftRight(destination: number, immediate: number): void {
    this.#add(RSH32_IMMEDIATE, { destination, immediate });
  }

  jumpIfEqual(destination: number, immediate: number, target: BpfLabel): void {
    this.#add(JEQ32_IMMEDIATE, { destination, immediate, target });
  }

  jumpUnlessEqual(destination: number, immediate: number, target: BpfLabel): void {
    this.#add(JNE32_IMMEDIATE, { destination, immediate, target });
  }

  /** Ends the program with a result. */
  exit(result: number): void {
    this.#add(MOV64_IMMEDIATE, { destination: RESULT, immediate: result });
    this.#add(EXIT, {});
  }

  label(): BpfLabel {
    return { position: undefined };
  }

  /** The label stands for the next instruction. */
  place(label: BpfLabel): void {
    label.position = this.#instructions.length;
  }

  /** struct bpf_insn: u8 code, two 4-bit registers, s16 offset, s32 immediate. */
  encode(): Uint8Array {
    const bytes = Buffer.alloc(this.#instructions.length * 8);
    this.#instructions.forEach((instruction, index) => {
      const { code, destination, source, target } = instruction;
      bytes.writeUInt8(code, index * 8);
      bytes.writeUInt8(destination | (source << 4), index * 8 + 1);
      bytes.writeInt16LE(target ? this.#distance(index, target) : instruction.offset, index * 8 + 2);
      bytes.writeInt32LE(instruction.immediate | 0, index * 8 + 4);
    });
    return bytes;
  }

  #distance(index: number, target: BpfLabel): number {
    if (target.position === undefined)
      throw new HakoError("INTERNAL", "Cannot encode a jump to an unplaced label");
    return target.position - index - 1;
  }
}
