/** struct seccomp_data (linux/seccomp.h). */
export interface SeccompData {
  readonly arch: number;
  readonly number: number;
  readonly args?: readonly bigint[];
}

const INSTRUCTION_SIZE = 8;
const PROGRAM_MAX = 4096;

/**
 * Runs a classic BPF program on seccomp data, after the checks that the kernel makes of one (bpf_check_classic,
 * seccomp_check_filter): known instructions, jumps inside, a return at the end. Returns the action and the number of
 * instructions executed.
 */
export function runFilter(program: Uint8Array, data: SeccompData): { action: number; steps: number } {
  const view = new DataView(program.buffer, program.byteOffset, program.byteLength);
  const input = encodeData(data);
  const count = program.length / INSTRUCTION_SIZE;
  if (!Number.isInteger(count) || count > PROGRAM_MAX)
    throw new Error(`${program.length} bytes are no program`);
  let accumulator = 0;
  let steps = 0;
  for (let at = 0; at < count; at++) {
    steps += 1;
    const code = view.getUint16(at * INSTRUCTION_SIZE, true);
    const jt = view.getUint8(at * INSTRUCTION_SIZE + 2);
    const jf = view.getUint8(at * INSTRUCTION_SIZE + 3);
    const k = view.getUint32(at * INSTRUCTION_SIZE + 4, true);
    switch (code) {
      case 0x20:
        accumulator = input.getUint32(k, true);
        break;
      case 0x54:
        accumulator = (accumulator & k) >>> 0;
        break;
      case 0x05:
        at += k;
        break;
      case 0x15:
        at += accumulator === k ? jt : jf;
        break;
      case 0x25:
        at += accumulator > k ? jt : jf;
        break;
      case 0x35:
        at += accumulator >= k ? jt : jf;
        break;
      case 0x45:
        at += accumulator & k ? jt : jf;
        break;
      case 0x06:
        return { action: k, steps };
      default:
        throw new Error(`Instruction ${at} has the unknown code ${code}`);
    }
  }
  throw new Error("The program runs over its end");
}

function encodeData({ number, arch, args = [] }: SeccompData): DataView {
  const data = new DataView(new ArrayBuffer(64));
  data.setUint32(0, number >>> 0, true);
  data.setUint32(4, arch >>> 0, true);
  for (const [index, arg] of args.entries()) data.setBigUint64(16 + 8 * index, arg, true);
  return data;
}

/** Throws when the kernel would refuse to load the program. */
export function verifyProgram(program: Uint8Array): void {
  const view = new DataView(program.buffer, program.byteOffset, program.byteLength);
  const count = program.length / INSTRUCTION_SIZE;
  for (let at = 0; at < count; at++) {
    const code = view.getUint16(at * INSTRUCTION_SIZE, true);
    const furthest =
      code === 0x05
        ? view.getUint32(at * INSTRUCTION_SIZE + 4, true)
        : Math.max(view.getUint8(at * INSTRUCTION_SIZE + 2), view.getUint8(at * INSTRUCTION_SIZE + 3));
    if (![0x20, 0x54, 0x05, 0x15, 0x25, 0x35, 0x06].includes(code))
      throw new Error(`Instruction ${at}: code ${code}`);
    if ([0x05, 0x15, 0x25, 0x35].includes(code) && at + 1 + furthest >= count) {
      throw new Error(`Instruction ${at} jumps over the end`);
    }
  }
  if (count < 1 || view.getUint16((count - 1) * INSTRUCTION_SIZE, true) !== 0x06)
    throw new Error("No return at the end");
}
