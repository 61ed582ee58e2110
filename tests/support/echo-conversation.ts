import { HakoError } from "#base/error.ts";
import { Empty } from "#proto/google/protobuf/empty.ts";
import { createClient, type TtrpcClient } from "#ttrpc/client.ts";
import { bytesValue, EchoDefinition, textOf } from "./echo-service.ts";

/** What came of one call. */
export interface Outcome {
  readonly call: string;
  /** Texts of the responses before the end. */
  readonly messages: readonly string[];
  readonly code: string;
}

type Messages = AsyncIterable<{ data: Uint8Array }>;

/**
 * Holds the conversation of tests/interop/ttrpc-peer/main.go: the same calls in the same order; at the end the
 * parallel ones in the order given.
 */
export async function converse(client: TtrpcClient, parallel: readonly string[]): Promise<Outcome[]> {
  const echo = createClient(EchoDefinition, client);
  const one = async (response: Promise<{ data: Uint8Array }>) => [textOf(await response)];
  const text = async (response: Promise<{ containerId: string }>) => [(await response).containerId];
  const none = async (response: Promise<unknown>) => {
    await response;
    return [];
  };
  const unknown = (fullName: string, name: string) =>
    none(client.call({ fullName, methods: {} }, { ...EchoDefinition.methods.wait, name }, Empty.create()));
  const metadata = new Map([["color", ["red", "blue"]]]);
  const outcomes = [
    await outcome("echo", () => one(echo.echo(bytesValue("hello")))),
    await outcome("echo of nothing", () => one(echo.echo({}))),
    await outcome("long echo", () => one(echo.echo(bytesValue("0123456789abcdef".repeat(200))))),
    await outcome("failure", () => none(echo.fail({ containerId: 'No such thing: "ü"' }))),
    await outcome("metadata", () => text(echo.readMetadata({ containerId: "color" }, { metadata }))),
    await outcome("no metadata", () => text(echo.readMetadata({ containerId: "color" }))),
    await outcome("unknown method", () => unknown(EchoDefinition.fullName, "Sing")),
    await outcome("unknown service", () => unknown("hako.test.Absent", "Echo")),
    await outcome("split", () => echo.split(bytesValue("abc"))),
    await outcome("split of nothing", () => echo.split({})),
    await outcome("join", () => one(echo.join(say("one ", "two ", "three")))),
    await outcome("join of nothing", () => one(echo.join(say()))),
    await outcome("chat", () => echo.chat(say("a", "b", "c"))),
    await outcome("chat that fails", () => echo.chat(say("a", ""))),
    await outcome("deadline", () => none(echo.wait({}, { timeoutMs: 50 }))),
  ];
  const calls = parallel.map((words) => outcome(words, () => one(echo.echo(bytesValue(words)))));
  return [...outcomes, ...(await Promise.all(calls))];
}

/** The code as Go writes it: `NotFound` becomes `NOT_FOUND`. */
export function codeOfGo(code: string): string {
  return code.replace(/(?<=[a-z])(?=[A-Z])/g, "_").toUpperCase();
}

async function* say(...texts: string[]) {
  for (const text of texts) yield bytesValue(text);
}

async function outcome(call: string, make: () => Promise<string[]> | Messages): Promise<Outcome> {
  const messages: string[] = [];
  try {
    const made = make();
    if (made instanceof Promise) messages.push(...(await made));
    else for await (const message of made) messages.push(textOf(message));
    return { call, messages, code: "OK" };
  } catch (error) {
    return { call, messages, code: HakoError.from(error).code };
  }
}
