import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { HakoError } from "#base/error.ts";
import type { Process as ProcessConfig } from "#oci/runtime-spec.ts";
import { replaceDurably } from "#runtime/durable-file.ts";
import { E, isErrno } from "#sys/errno.ts";
import type { StreamAddresses } from "./io/task-io.ts";

/** The file of a shim in its sandbox's directory. */
const FILE = "shim.json";
/** Raised when the shape changes. */
export const RECORD_VERSION = 1;

export interface ExitRecord {
  readonly code: number;
  /** ISO 8601. */
  readonly at: string;
}

export interface ExecRecord {
  readonly execId: string;
  readonly streams: StreamAddresses;
  readonly config: ProcessConfig;
  readonly started: boolean;
  readonly exit?: ExitRecord;
}

export interface TaskRecord {
  readonly id: string;
  readonly bundle: string;
  readonly streams: StreamAddresses;
  readonly exit?: ExitRecord;
  readonly execs: readonly ExecRecord[];
}

/** What a shim has to remember beside its sandbox's state, so that another one can go on. JSON. */
export interface ShimRecord {
  readonly version: typeof RECORD_VERSION;
  readonly namespace: string;
  /** containerd's id; hako's own may differ. */
  readonly sandboxId: string;
  readonly containerdAddress: string;
  readonly ttrpcAddress?: string;
  /** The shim's own socket. */
  readonly socketPath: string;
  readonly bundle: string;
  readonly tasks: readonly TaskRecord[];
}

export async function saveRecord(sandboxDir: string, record: ShimRecord): Promise<void> {
  await replaceDurably(join(sandboxDir, FILE), `${JSON.stringify(record)}\n`);
}

/** Undefined when no shim has this sandbox. Throws DATA_LOSS for a file of another version. */
export async function findRecord(sandboxDir: string): Promise<ShimRecord | undefined> {
  const path = join(sandboxDir, FILE);
  try {
    const record = JSON.parse(await readFile(path, "utf8")) as ShimRecord;
    if (record.version === RECORD_VERSION && Array.isArray(record.tasks)) return record;
  } catch (cause) {
    if (isErrno(cause, E.ENOENT) || isErrno(cause, E.ENOTDIR)) return undefined;
    throw new HakoError("DATA_LOSS", `Shim record "${path}" cannot be read`, { cause });
  }
  throw new HakoError("DATA_LOSS", `Shim record "${path}" is not of version ${RECORD_VERSION}`);
}
