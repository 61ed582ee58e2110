import { HakoError } from "#base/error.ts";
import { findText, writeText } from "#linux/file.ts";
import { E, isErrno } from "#sys/errno.ts";

/** One value for one control file of a cgroup. */
export interface ControlSetting {
  /** The controller that must be enabled for the file to exist, for the error message. */
  readonly controller: string;
  readonly file: string;
  readonly value: string;
}

/** Whether a cgroup has a control file of this name. */
export type HasControlFile = (file: string) => boolean;

function explain(directory: string, setting: ControlSetting, cause: unknown): HakoError {
  const { controller, file, value } = setting;
  const action = `Cannot set "${file}" of cgroup "${directory}" to "${value}"`;
  if (isErrno(cause, E.ENOENT) || isErrno(cause, E.EACCES)) {
    return new HakoError("FAILED_PRECONDITION", `${action}: the controller "${controller}" is not there`, {
      cause,
    });
  }
  if (isErrno(cause, E.EINVAL) || isErrno(cause, E.ERANGE) || isErrno(cause, E.ENODEV)) {
    return new HakoError("INVALID_ARGUMENT", `${action}: the kernel refuses the value`, { cause });
  }
  return new HakoError(HakoError.from(cause).code, action, { cause });
}

/** Writes at once, on the calling thread: for cgroups without processes, where no write has to wait. */
export function writeControl(directory: string, setting: ControlSetting): void {
  try {
    writeText(`${directory}/${setting.file}`, setting.value);
  } catch (cause) {
    throw explain(directory, setting, cause);
  }
}

/** Writes on another thread: a smaller memory.max returns only after memory was reclaimed. */
export async function writeControlBlocking(directory: string, setting: ControlSetting): Promise<void> {
  const { writeFile } = await import("node:fs/promises");
  try {
    await writeFile(`${directory}/${setting.file}`, setting.value, { flag: "r+" });
  } catch (cause) {
    throw explain(directory, setting, cause);
  }
}

/** The content without the last newline; undefined when there is no such file (or its cgroup is gone). */
export function readControl(directory: string, file: string): string | undefined {
  try {
    return findText(`${directory}/${file}`)?.trimEnd();
  } catch (error) {
    // A file that this cgroup has, but that has nothing to say in it.
    if (isErrno(error, E.EOPNOTSUPP)) return undefined;
    throw error;
  }
}

/** A single number; "max" and a missing file are undefined. */
export function readNumber(directory: string, file: string): bigint | undefined {
  const text = readControl(directory, file);
  return text !== undefined && /^\d+$/.test(text) ? BigInt(text) : undefined;
}

/** A flat keyed file (`KEY NUMBER` lines) as cgroup.events, cpu.stat and memory.stat are; empty without the file. */
export function readFlatKeyed(directory: string, file: string): Map<string, bigint> {
  const entries = new Map<string, bigint>();
  for (const line of readControl(directory, file)?.split("\n") ?? []) {
    const [key, value] = line.split(" ");
    if (key && value && /^\d+$/.test(value)) entries.set(key, BigInt(value));
  }
  return entries;
}
