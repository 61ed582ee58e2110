import { HakoError } from "#base/error.ts";
import type { Seccomp, SeccompArgument, SeccompRule } from "./runtime-spec.ts";

/** A rule of docker's profile format: an OCI rule that may depend on the container. */
interface ProfileRule extends SeccompRule {
  includes?: Condition;
  excludes?: Condition;
}

interface Condition {
  caps?: string[];
  /** Go's names: `amd64`. */
  arches?: string[];
  /** `4.8`. */
  minKernel?: string;
}

/** What rules of a profile may ask about. */
export interface ProfileContext {
  /** The bounding set, `CAP_…` names. */
  readonly capabilities: readonly string[];
  /** The guest's kernel version, `6.1`. */
  readonly kernel: string;
}

const ACTION = /^SCMP_ACT_[A-Z_]+$/;
const MAX_RULES = 4096;
const ARCHITECTURE = "amd64";
const ARCHITECTURES = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"];

/**
 * Reads a seccomp profile, docker's format or that of the OCI runtime specification, and settles all that depends
 * on the container. Throws INVALID_ARGUMENT naming `what` and the member at fault.
 */
export function parseSeccompProfile(text: string, what: string, context: ProfileContext): Seccomp {
  const profile = parseObject(text, what);
  const fail = (problem: string) => new HakoError("INVALID_ARGUMENT", `Seccomp profile ${what}: ${problem}`);
  if (typeof profile.defaultAction !== "string" || !ACTION.test(profile.defaultAction)) {
    throw fail(`"defaultAction" is not an action such as "SCMP_ACT_ERRNO"`);
  }
  const rules = profile.syscalls ?? [];
  if (!Array.isArray(rules) || rules.length > MAX_RULES)
    throw fail(`"syscalls" is not a list of at most ${MAX_RULES}`);
  const seccomp: Seccomp = {
    defaultAction: profile.defaultAction,
    architectures: isStrings(profile.architectures) ? profile.architectures : ARCHITECTURES,
    syscalls: rules
      .map((rule: unknown, index) => checkRule(rule, (problem) => fail(`syscalls[${index}]: ${problem}`)))
      .filter((rule) => applies(rule, context))
      .map(({ includes, excludes, ...rule }) => rule),
  };
  if (typeof profile.defaultErrnoRet === "number") seccomp.defaultErrnoRet = profile.defaultErrnoRet;
  if (isStrings(profile.flags)) seccomp.flags = profile.flags;
  return seccomp;
}

function parseObject(text: string, what: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new HakoError("INVALID_ARGUMENT", `Seccomp profile ${what} is not JSON`, { cause });
  }
  if (!isObject(value))
    throw new HakoError("INVALID_ARGUMENT", `Seccomp profile ${what} is not a JSON object`);
  return value;
}

function checkRule(rule: unknown, fail: (problem: string) => HakoError): ProfileRule {
  if (!isObject(rule)) throw fail("not an object");
  const names = isStrings(rule.names) ? rule.names : typeof rule.name === "string" ? [rule.name] : [];
  if (names.length === 0) throw fail(`"names" is not a list of system calls`);
  if (typeof rule.action !== "string" || !ACTION.test(rule.action)) throw fail(`"action" is not an action`);
  const checked: ProfileRule = { names, action: rule.action };
  if (typeof rule.errnoRet === "number") checked.errnoRet = rule.errnoRet;
  if (Array.isArray(rule.args) && rule.args.length > 0)
    checked.args = rule.args.map((entry) => checkArgument(entry, fail));
  const includes = checkCondition(rule.includes, fail);
  const excludes = checkCondition(rule.excludes, fail);
  if (includes) checked.includes = includes;
  if (excludes) checked.excludes = excludes;
  return checked;
}

function checkArgument(entry: unknown, fail: (problem: string) => HakoError): SeccompArgument {
  if (!isObject(entry)) throw fail(`an entry of "args" is not an object`);
  const { index, value, valueTwo, op } = entry;
  if (typeof index !== "number" || index < 0 || index > 5) throw fail(`"index" of an argument is not 0 to 5`);
  if (typeof value !== "number" || typeof op !== "string" || !op.startsWith("SCMP_CMP_")) {
    throw fail(`an argument needs "value" and "op"`);
  }
  return typeof valueTwo === "number" ? { index, value, valueTwo, op } : { index, value, op };
}

/** Absent and empty are the same. A condition that nobody here knows would be passed over in silence, so it is refused. */
function checkCondition(value: unknown, fail: (problem: string) => HakoError): Condition | undefined {
  if (value === undefined || value === null) return undefined;
  if (!isObject(value)) throw fail("a condition is not an object");
  for (const [key, words] of Object.entries(value)) {
    const known =
      key === "minKernel" ? typeof words === "string" : ["caps", "arches"].includes(key) && isStrings(words);
    if (!known) throw fail(`condition "${key}" is not understood`);
  }
  return value as Condition;
}

/** All of `includes` hold, none of `excludes`. */
function applies(rule: ProfileRule, context: ProfileContext): boolean {
  const { includes, excludes } = rule;
  if (includes?.caps?.length && !includes.caps.every((name) => context.capabilities.includes(name)))
    return false;
  if (includes?.arches?.length && !includes.arches.includes(ARCHITECTURE)) return false;
  if (includes?.minKernel && !atLeast(context.kernel, includes.minKernel)) return false;
  if (excludes?.caps?.some((name) => context.capabilities.includes(name))) return false;
  if (excludes?.arches?.includes(ARCHITECTURE)) return false;
  return !(excludes?.minKernel && atLeast(context.kernel, excludes.minKernel));
}

function atLeast(version: string, wanted: string): boolean {
  const [major = 0, minor = 0] = version.split(".").map(Number);
  const [wantedMajor = 0, wantedMinor = 0] = wanted.split(".").map(Number);
  return major > wantedMajor || (major === wantedMajor && minor >= wantedMinor);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isStrings(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((entry) => typeof entry === "string");
}
