import { DataType, load, open } from "ffi-rs";

const library = "hako";
let opened = false;

/**
 * Calls hako_syscall(words…) of the library at `path` on a pool thread. Only syscall.ts imports this file, and
 * only when a blocking call is made: loading ffi-rs costs milliseconds and megabytes.
 */
export async function callOnThread(path: string, words: readonly number[]): Promise<number> {
  if (!opened) {
    open({ library, path });
    opened = true;
  }
  return await load({
    library,
    funcName: "hako_syscall",
    retType: DataType.I64,
    paramsType: words.map(() => DataType.I64),
    paramsValue: [...words],
    runInNewThread: true,
  });
}
