import { check } from "./errno.ts";
import { addressOf } from "./native.ts";
import { cstr, SYS, syscall } from "./syscall.ts";

/**
 * Replaces this process by a program, which keeps the pid, the descriptors that are not close-on-exec, and the
 * namespaces of the calling thread; all other threads end. Returns only by throwing.
 */
export function replaceProcess(
  path: string,
  argv: readonly string[],
  environment: Readonly<Record<string, string | undefined>>,
): never {
  const entries = Object.entries(environment).flatMap(([name, value]) =>
    value === undefined ? [] : `${name}=${value}`,
  );
  const [words, variables] = [argv.map(cstr), entries.map(cstr)];
  const result = syscall(SYS.execve, cstr(path), pointers(words), pointers(variables));
  check(result, `Cannot execute "${path}"`);
  // The strings are referenced until here, so that the collector cannot free them during the call.
  throw new Error(`execve returned with ${words.length + variables.length} strings`);
}

/** An array of pointers that ends with null. */
function pointers(strings: readonly Uint8Array[]): BigUint64Array {
  return BigUint64Array.from([...strings.map((string) => BigInt(addressOf(string))), 0n]);
}
