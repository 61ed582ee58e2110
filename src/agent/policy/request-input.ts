import { HakoError } from "#base/error.ts";
import { exactNumber, RegoObject, type Value } from "#policy/rego/value.ts";
import type { CopyFileRequest } from "#proto/agent.ts";

/** Names of the protocol that look like ours for names with underscores but are not. A test compares with the files. */
const CAMEL_CASE: ReadonlySet<string> = new Set([
  "additionalGids",
  "devicePath",
  "hwAddr",
  "memHotplugProbeAddr",
  "toIPAddress",
]);

/** Members that hold a map: their keys are data, not names of fields. */
const MAPS: ReadonlySet<string> = new Set(["Annotations", "Rdma", "Sysctl", "TimeOffsets", "Unified"]);

/**
 * hako's additions to the protocol (numbers from 1000 on): policies written for Kata know nothing of them, so they are
 * there only if used. Mounts have two that elsewhere are Kata's.
 */
const ADDITIONS: ReadonlySet<string> = new Set([
  "DefaultErrnoRet",
  "Domainname",
  "IOPriority",
  "ListenerPath",
  "Personality",
  "Rdma",
  "Scheduler",
  "TimeOffsets",
  "Umask",
  "Unified",
]);
const MOUNT_ADDITIONS: ReadonlySet<string> = new Set(["GIDMappings", "UIDMappings"]);

/** Members that the generated code adds: bytes it did not know, and which member of a union is there. */
const GENERATED: ReadonlySet<string> = new Set(["_unknownFields", "$case"]);

// linux/stat.h
const S_IFMT = 0o170000;
const fileTypes: ReadonlyMap<number, string> = new Map([
  [0o100000, "Regular"],
  [0o040000, "Directory"],
  [0o120000, "Symlink"],
]);

/**
 * The name under which policies see a field: as in Kata's .proto files, and "type" with an underscore behind it, as the
 * language that Kata's agent is written in has it.
 */
export function policyFieldName(name: string): string {
  if (name === "type") return "type_";
  if (CAMEL_CASE.has(name) || !/^[a-z]/.test(name)) return name;
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

/** A request as policies see it; what they do not look at costs nothing. */
export function requestInput(request: string, message: object): Value {
  if (request === "CopyFileRequest") return copyFileInput(message as CopyFileRequest);
  return messageValue(message);
}

function messageValue(message: object): RegoObject {
  const additions = "destination" in message ? MOUNT_ADDITIONS : ADDITIONS;
  return new RegoObject(() =>
    Object.entries(message).flatMap(([name, value]) => member(name, value, additions.has(name))),
  );
}

function member(name: string, value: unknown, isAddition: boolean): [Value, Value][] {
  if (GENERATED.has(name) || (isAddition && isDefault(value))) return [];
  return [[policyFieldName(name), MAPS.has(name) ? mapValue(value) : fieldValue(value)]];
}

function isDefault(value: unknown): boolean {
  if (typeof value === "object" && value !== null) return Object.keys(value).length === 0;
  return value === undefined || value === "";
}

function fieldValue(value: unknown): Value {
  if (value === undefined || value === null) return null;
  if (typeof value === "bigint") return exactNumber(value);
  if (Array.isArray(value)) return value.map(fieldValue);
  if (value instanceof Uint8Array) return value;
  return typeof value === "object" ? messageValue(value) : (value as Value);
}

function mapValue(value: unknown): RegoObject {
  return RegoObject.of(Object.entries(value ?? {}).map(([key, item]) => [key, fieldValue(item)] as const));
}

/** Policies are spared the bits of the mode and the content; the target of a symbolic link they see as text. */
function copyFileInput(request: CopyFileRequest): Value {
  const fileType = fileTypes.get(request.fileMode & S_IFMT) ?? "Unknown";
  return RegoObject.of([
    ["path", request.path],
    ["file_type", fileType],
    ["symlink_target", fileType === "Symlink" ? linkTarget(request.data) : null],
    ["file_size", exactNumber(request.fileSize)],
    ["file_mode", request.fileMode],
    ["dir_mode", request.dirMode],
    ["uid", request.uid],
    ["gid", request.gid],
    ["offset", exactNumber(request.offset)],
  ]);
}

function linkTarget(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    throw new HakoError("INVALID_ARGUMENT", "Cannot copy a symbolic link: its target is no text", { cause });
  }
}
