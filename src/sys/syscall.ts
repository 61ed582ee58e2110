import { HakoError } from "#base/error.ts";
import { addressOf, native } from "./native.ts";
import { SYS_X86_64 } from "./syscall-x86-64.ts";

/** Numbers of the system calls that hako makes, for the architecture it was built for. */
export const SYS = SYS_X86_64;

/** A number and six arguments. */
const WORDS = 7;

/** A number, a flag word, or memory whose address is meant; null is the null pointer. */
export type SyscallArgument = number | bigint | NodeJS.TypedArray | DataView | null;

function toWord(argument: SyscallArgument): number | bigint {
  if (typeof argument === "number" || typeof argument === "bigint") return argument;
  if (argument === null || argument.byteLength === 0) return 0;
  return addressOf(argument);
}

/**
 * Makes one system call on the calling thread and returns its value, or -errno.
 * The event loop stands still meanwhile: for calls that may block use {@link syscallBlocking}.
 */
export function syscall(
  number: number,
  a0: SyscallArgument = 0,
  a1: SyscallArgument = 0,
  a2: SyscallArgument = 0,
  a3: SyscallArgument = 0,
  a4: SyscallArgument = 0,
  a5: SyscallArgument = 0,
): number {
  const result = native().symbols.hako_syscall(
    number,
    toWord(a0),
    toWord(a1),
    toWord(a2),
    toWord(a3),
    toWord(a4),
    toWord(a5),
  );
  return Number(result);
}

/**
 * Makes one system call on a thread of a small pool (as many as there are cores) and resolves to its value,
 * or -errno. For calls that may take long but do end (mount, umount2, fsync, fallocate); never for one that can
 * wait for ever. Costs about 50 µs. Buffers must not be changed until it resolves.
 */
export async function syscallBlocking(number: number, ...args: SyscallArgument[]): Promise<number> {
  const { callOnThread } = await import("./thread-pool.ts");
  const words = [number, ...args.map(toWord)].map(Number);
  if (words.length > WORDS)
    throw new HakoError("INVALID_ARGUMENT", "A system call takes at most six arguments");
  while (words.length < WORDS) words.push(0);
  const holder = { args };
  const result = await callOnThread(native().path, words);
  // The buffers are referenced until here, so that the collector cannot free them during the call.
  holder.args = [];
  return result;
}

/** A NUL-terminated copy of a string. Throws INVALID_ARGUMENT when it has a NUL inside. */
export function cstr(text: string): Uint8Array {
  if (text.includes("\0")) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Cannot pass ${JSON.stringify(text)} to the kernel: it has a NUL inside`,
    );
  }
  return Buffer.from(`${text}\0`);
}
