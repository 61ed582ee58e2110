import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type AgentAddress, parseAddress } from "#agent-client/address.ts";
import { type AgentClient, connectAgent } from "#agent-client/client.ts";
import { toProtoSpec } from "#agent-client/spec.ts";
import { closest } from "#base/closest.ts";
import { HakoError } from "#base/error.ts";
import type { Arguments } from "#cli/arguments.ts";
import { print, printJson } from "#cli/output.ts";
import type { Spec } from "#oci/runtime-spec.ts";
import { AgentServiceDefinition } from "#proto/agent.ts";
import { HealthDefinition } from "#proto/health.ts";
import { JsonMessages } from "./json-message.ts";
import { buildRequest } from "./request.ts";
import { loadSchema, type Method, type Schema } from "./schema.ts";

const HEALTH = "grpc.Health";
const CONNECT_TIMEOUT_MS = 10_000;

interface Call {
  readonly method: Method;
  readonly service: string;
  readonly words: readonly string[];
}

/** What a call came to. */
interface Outcome {
  readonly call: string;
  readonly milliseconds: number;
  readonly response?: Record<string, unknown>;
  readonly error?: { readonly code: string; readonly message: string };
}

/** Prints all calls, or the fields of one. */
export function listCalls(input: Arguments): number {
  const schema = loadSchema();
  const [, name] = input.positionals;
  const calls =
    name === undefined
      ? [...schema.services].flatMap(([, methods]) => methods)
      : [findMethod(schema, name).method];
  const described = calls.map((method) => ({
    call: method.name,
    request: method.request,
    fields: (schema.messages.get(method.request) ?? []).map((field) => ({
      name: field.name,
      type:
        field.label === "repeated"
          ? `${field.type}[]`
          : field.label === "map"
            ? `map of ${field.type}`
            : field.type,
    })),
  }));
  if (input.flag("json")) printJson(described);
  else if (name === undefined) print(described.map(({ call }) => call).join("\n"));
  else
    print(
      described.flatMap(({ fields }) => fields.map((field) => `${field.name}  ${field.type}`)).join("\n") ||
        "(no fields)",
    );
  return 0;
}

/** Connects to an agent and makes the calls one after the other, as often as asked. The exit code is 1 when one failed. */
export async function makeCalls(input: Arguments): Promise<number> {
  const schema = loadSchema();
  const messages = new JsonMessages(schema);
  const calls = parseCalls(schema, input);
  const repeat = parseCount(input.value("repeat") ?? "1");
  const timeoutMs = parseCount(input.value("timeout") ?? "0") * 1000;
  const bundle = input.value("bundle");
  // All requests are put together before the first call, so that a mistake costs nothing.
  const prepared = calls.map((call) => ({ call, request: prepare(messages, call, bundle) }));
  using client = await connectAgent(parseServer(input), { timeoutMs: CONNECT_TIMEOUT_MS });
  const outcomes: Outcome[] = [];
  for (let round = 0; round < repeat; round++) {
    for (const { call, request } of prepared) {
      const outcome = await makeCall(client, messages, call, request, timeoutMs, input.flag("json"));
      outcomes.push(outcome);
      if (repeat === 1) report(outcome, input.flag("json"));
      if (outcome.error && !input.flag("keep-going")) return finish(outcomes, repeat, input.flag("json"));
    }
  }
  return finish(outcomes, repeat, input.flag("json"));
}

function parseServer(input: Arguments): AgentAddress {
  const text = input.value("server-addr");
  if (text === undefined)
    throw new HakoError("INVALID_ARGUMENT", "Which agent? Give its address by --server-addr");
  return parseAddress(text);
}

function parseCount(text: string): number {
  if (/^\d{1,7}$/.test(text)) return Number(text);
  throw new HakoError("INVALID_ARGUMENT", `"${text}" is not a whole number below ten million`);
}

/** The words behind the options are one call; each -c holds one as well, its words set apart by blanks. */
function parseCalls(schema: Schema, input: Arguments): Call[] {
  const lines = input.list("cmd").map((line) => line.match(/json:\/\/.*|\S+/g) ?? []);
  const given = input.positionals.length > 0 ? [[...input.positionals], ...lines] : lines;
  const calls = given
    .filter(([name]) => name !== undefined)
    .map(([name = "", ...words]) => ({ ...findMethod(schema, name), words }));
  if (calls.length > 0) return calls;
  throw new HakoError("INVALID_ARGUMENT", 'Which call? "hako agent-ctl list" prints all');
}

function findMethod(schema: Schema, name: string): { service: string; method: Method } {
  for (const [service, methods] of schema.services) {
    const method = methods.find((candidate) => candidate.name.toLowerCase() === name.toLowerCase());
    if (method) return { service, method };
  }
  const names = [...schema.services.values()].flat().map((method) => method.name);
  const near = closest(name, names);
  throw new HakoError(
    "INVALID_ARGUMENT",
    `There is no call "${name}"${near ? `; did you mean "${near}"?` : ""}`,
  );
}

function prepare(
  messages: JsonMessages,
  { method, words }: Call,
  bundle: string | undefined,
): Record<string, unknown> {
  const request = buildRequest(messages, method.request, words);
  if (bundle === undefined || method.name !== "CreateContainer" || request.OCI !== undefined) return request;
  return { ...request, OCI: toProtoSpec(readBundle(bundle)) };
}

function readBundle(directory: string): Spec {
  const path = join(directory, "config.json");
  try {
    return JSON.parse(readFileSync(path, "utf8")) as Spec;
  } catch (cause) {
    throw new HakoError("INVALID_ARGUMENT", `Cannot read bundle "${directory}"`, { cause });
  }
}

async function makeCall(
  client: AgentClient,
  messages: JsonMessages,
  { method, service }: Call,
  request: Record<string, unknown>,
  timeoutMs: number,
  json: boolean,
): Promise<Outcome> {
  const definition = service === HEALTH ? HealthDefinition : AgentServiceDefinition;
  const key = Object.entries(definition.methods).find(([, other]) => other.name === method.name)?.[0] ?? "";
  const functions = (service === HEALTH ? client.health : client.agent) as unknown as Record<
    string,
    (request: unknown, options: object) => Promise<object>
  >;
  const started = performance.now();
  const since = () => performance.now() - started;
  try {
    const response = await functions[key]?.(request, timeoutMs > 0 ? { timeoutMs } : {});
    const bytes = json ? (value: Uint8Array) => Buffer.from(value).toString("base64") : readable;
    return {
      call: method.name,
      milliseconds: since(),
      response: messages.toJson(method.response, response ?? {}, bytes),
    };
  } catch (caught) {
    const { code, fullMessage } = HakoError.from(caught);
    return { call: method.name, milliseconds: since(), error: { code, message: fullMessage } };
  }
}

/** Bytes for people: text where they are text. */
function readable(bytes: Uint8Array): unknown {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return { base64: Buffer.from(bytes).toString("base64") };
  }
}

function report({ call, milliseconds, response, error }: Outcome, json: boolean): void {
  if (json) printJson({ call, milliseconds, ...(error ? { error } : { response }) });
  else if (error) print(`${call}: ${error.code}: ${error.message}`);
  else if (Object.keys(response ?? {}).length === 0) print(`${call}: OK`);
  else print(`${call}: ${JSON.stringify(response, undefined, 2)}`);
}

function finish(outcomes: readonly Outcome[], repeat: number, json: boolean): number {
  const failed = outcomes.filter(({ error }) => error !== undefined);
  if (repeat > 1) {
    const times = outcomes.map(({ milliseconds }) => milliseconds).toSorted((a, b) => a - b);
    const at = (share: number) => times[Math.min(times.length - 1, Math.floor(times.length * share))] ?? 0;
    const summary = { calls: outcomes.length, failed: failed.length, p50Ms: at(0.5), p99Ms: at(0.99) };
    if (json) printJson({ ...summary, firstError: failed[0]?.error });
    else {
      print(
        `${summary.calls} calls, ${summary.failed} failed, p50 ${summary.p50Ms.toFixed(3)} ms, p99 ${summary.p99Ms.toFixed(3)} ms`,
      );
      if (failed[0]) report(failed[0], false);
    }
  }
  return failed.length > 0 ? 1 : 0;
}
