import { HakoError } from "#base/error.ts";
import { version } from "#base/version.ts";
import { E } from "#sys/errno.ts";
import { type Fd, writeFd } from "#sys/fd.ts";
import { waitWritable } from "#sys/poller.ts";
import { logger } from "#telemetry/log.ts";
import type { ServiceDefinition } from "#ttrpc/definition.ts";
import type { ServiceImplementation } from "#ttrpc/server.ts";
import type { CallContext } from "#ttrpc/server-call.ts";

/** Where Kata's trace forwarder listens on the host. */
export const TRACE_PORT = 10240;
/** Spans that wait to be sent; more are counted and left out. */
const WAITING_MAX = 2048;
const SEND_EVERY_MS = 1000;
const SEND_TIMEOUT_MS = 5000;
/** opentelemetry/proto/trace/v1: SPAN_KIND_SERVER, STATUS_CODE_OK, STATUS_CODE_ERROR. */
const KIND_SERVER = 2;
const STATUS_OK = 1;
const STATUS_ERROR = 2;
const TRACE_PARENT = /^00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$/;
/** Long polls and streams say nothing about where time goes. */
const quietCalls: ReadonlySet<string> = new Set([
  "readStdout",
  "readStderr",
  "waitProcess",
  "getOOMEvent",
  "writeStdin",
]);
const log = logger("trace");

interface Span {
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId?: string;
  readonly name: string;
  readonly kind: number;
  readonly startTimeUnixNano: string;
  readonly endTimeUnixNano: string;
  readonly attributes: readonly { readonly key: string; readonly value: { readonly stringValue: string } }[];
  readonly status: { readonly code: number; readonly message?: string };
}

function randomId(bytes: number): string {
  return Buffer.from(crypto.getRandomValues(new Uint8Array(bytes))).toString("hex");
}

function nanoseconds(milliseconds: number): string {
  return String(BigInt(Math.round(milliseconds * 1000)) * 1000n);
}

/** The trace that a caller's metadata names (W3C Trace Context); a new one without. */
export function parseTraceParent(text: string | undefined): { traceId: string; parentSpanId?: string } {
  const [, traceId, parentSpanId] = TRACE_PARENT.exec(text ?? "") ?? [];
  if (traceId === undefined || parentSpanId === undefined || /^0+$/.test(traceId))
    return { traceId: randomId(16) };
  return { traceId, parentSpanId };
}

/** A request of the OTLP trace service as JSON (opentelemetry-proto, ExportTraceServiceRequest). */
export function encodeSpans(spans: readonly Span[]): Buffer {
  const attribute = (key: string, stringValue: string) => ({ key, value: { stringValue } });
  const resource = {
    attributes: [attribute("service.name", "hako-agent"), attribute("service.version", version)],
  };
  const scopeSpans = [{ scope: { name: "hako.agent", version }, spans }];
  return Buffer.from(JSON.stringify({ resourceSpans: [{ resource, scopeSpans }] }));
}

/** Collects the spans of calls and sends them to the host, each request behind its length as a big-endian u64. */
export class SpanExporter implements AsyncDisposable {
  readonly #connect: (signal: AbortSignal) => Promise<Fd>;
  readonly #timer: ReturnType<typeof setInterval>;
  #waiting: Span[] = [];
  #dropped = 0;
  #sending: Promise<void> | undefined;

  constructor(connect: (signal: AbortSignal) => Promise<Fd>) {
    this.#connect = connect;
    this.#timer = setInterval(() => void this.flush(), SEND_EVERY_MS);
    this.#timer.unref();
  }

  get dropped(): number {
    return this.#dropped;
  }

  add(span: Span): void {
    if (this.#waiting.length < WAITING_MAX) this.#waiting.push(span);
    else this.#dropped++;
  }

  /** Sends what waits; failures are counted as left out and do not concern the calls. */
  async flush(): Promise<void> {
    await this.#sending;
    const spans = this.#waiting;
    if (spans.length === 0) return;
    this.#waiting = [];
    this.#sending = this.#send(spans).catch((error) => {
      this.#dropped += spans.length;
      log.debug("spans were not taken", { count: spans.length, error: HakoError.from(error).fullMessage });
    });
    await this.#sending;
  }

  async #send(spans: readonly Span[]): Promise<void> {
    const signal = AbortSignal.timeout(SEND_TIMEOUT_MS);
    using connection = await this.#connect(signal);
    const body = encodeSpans(spans);
    const length = Buffer.alloc(8);
    length.writeBigUInt64BE(BigInt(body.length), 0);
    const message = Buffer.concat([length, body]);
    for (let offset = 0; offset < message.length; ) {
      const taken = writeFd(connection.number, message.subarray(offset));
      if (taken === -E.EAGAIN) await waitWritable(connection.number, signal);
      else if (taken < 0) throw new HakoError("UNAVAILABLE", "Cannot send spans: the connection is closed");
      else offset += taken;
    }
  }

  /** A service whose calls leave spans. */
  trace<Definition extends ServiceDefinition>(
    service: ServiceImplementation<Definition>,
  ): ServiceImplementation<Definition> {
    const traced = Object.entries(service).map(([name, method]) => [
      name,
      quietCalls.has(name) ? method : this.#traceMethod(method as Method),
    ]);
    return Object.fromEntries(traced) as ServiceImplementation<Definition>;
  }

  #traceMethod(method: Method): Method {
    return async (request, context) => {
      const start = Date.now();
      const began = performance.now();
      const parent = parseTraceParent(context.metadata.get("traceparent")?.[0]);
      const end = (status: Span["status"]) =>
        this.add({
          ...parent,
          spanId: randomId(8),
          name: context.name,
          kind: KIND_SERVER,
          startTimeUnixNano: nanoseconds(start),
          endTimeUnixNano: nanoseconds(start + performance.now() - began),
          attributes: attributesOf(request),
          status,
        });
      try {
        const answer = await method(request, context);
        end({ code: STATUS_OK });
        return answer;
      } catch (error) {
        const { code, message } = HakoError.from(error);
        end({ code: STATUS_ERROR, message: `${code}: ${message}` });
        throw error;
      }
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    await this.flush();
  }
}

type Method = (request: unknown, context: CallContext) => unknown;

/** What a call is about; never its content. */
function attributesOf(request: unknown): Span["attributes"] {
  if (typeof request !== "object" || request === null) return [];
  const names = { containerId: "container.id", execId: "hako.exec.id", sandboxId: "hako.sandbox.id" };
  return Object.entries(names).flatMap(([member, key]) => {
    const value = (request as Record<string, unknown>)[member];
    return typeof value === "string" && value !== ""
      ? [{ key, value: { stringValue: value.slice(0, 128) } }]
      : [];
  });
}
