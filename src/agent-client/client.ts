import { HakoError } from "#base/error.ts";
import { AgentServiceDefinition } from "#proto/agent.ts";
import { HealthCheckResponse_ServingStatus, HealthDefinition } from "#proto/health.ts";
import { createClient, type ServiceClient, TtrpcClient } from "#ttrpc/client.ts";
import { type AgentAddress, formatAddress } from "./address.ts";
import { openTransport } from "./transport.ts";

export interface ConnectOptions {
  /** Gives up with CANCELLED. */
  readonly signal?: AbortSignal;
  /** Gives up with DEADLINE_EXCEEDED after this many milliseconds; 30 s by default. */
  readonly timeoutMs?: number;
  /** Settles when the machine ends: there is no point in waiting then. Throws UNAVAILABLE with its reason as the cause. */
  readonly gone?: Promise<unknown>;
}

const DEFAULT_TIMEOUT_MS = 30_000;

/** The wait between two attempts, in milliseconds: it grows from the first to the last. */
const FIRST_RETRY_MS = 5;
const LAST_RETRY_MS = 20;

/** Whoever accepts a connection but does not answer within this time is asked anew, in milliseconds. */
const CHECK_TIMEOUT_MS = 5000;

/**
 * The longest message that is taken from a guest, in bytes: decoded, a message can occupy a hundred times its
 * length. The agent's longest are output (as long as asked for) and metrics.
 */
const MAX_MESSAGE_LENGTH = 1 << 20;

/** A connection to one agent. All calls fail with UNAVAILABLE once it is lost. */
export class AgentClient implements Disposable {
  readonly agent: ServiceClient<typeof AgentServiceDefinition>;
  readonly health: ServiceClient<typeof HealthDefinition>;
  /** Resolves when the connection has ended: undefined after {@link close}, otherwise why. */
  readonly closed: Promise<HakoError | undefined>;
  readonly #client: TtrpcClient;

  constructor(client: TtrpcClient) {
    this.#client = client;
    this.agent = createClient(AgentServiceDefinition, client);
    this.health = createClient(HealthDefinition, client);
    this.closed = client.closed;
  }

  close(): void {
    this.#client.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/**
 * Connects to an agent that may not be up yet: tries until it says that it serves. Throws DEADLINE_EXCEEDED with
 * the last failure as the cause, UNAVAILABLE when the machine ends, CANCELLED on the signal.
 */
export async function connectAgent(
  address: AgentAddress,
  options: ConnectOptions = {},
): Promise<AgentClient> {
  const { timeoutMs = DEFAULT_TIMEOUT_MS, gone } = options;
  const action = `Cannot reach the agent at "${formatAddress(address)}"`;
  const stop = new AbortController();
  const end = (error: HakoError) => stop.abort(error);
  let failure: HakoError | undefined;
  const cause = (error: unknown) => (error === undefined ? {} : { cause: error });
  const onAbort = () =>
    end(new HakoError("CANCELLED", `${action}: cancelled`, cause(options.signal?.reason)));
  const onGone = (reason: unknown) =>
    end(new HakoError("UNAVAILABLE", `${action}: the machine has ended`, cause(goneCause(reason))));
  const onTimeout = () =>
    end(new HakoError("DEADLINE_EXCEEDED", `${action}: no answer within ${timeoutMs} ms`, cause(failure)));
  options.signal?.addEventListener("abort", onAbort, { once: true });
  if (options.signal?.aborted) onAbort();
  gone?.then(onGone, onGone);
  const timer = setTimeout(onTimeout, timeoutMs);
  try {
    for (let wait = FIRST_RETRY_MS; ; wait = Math.min(wait * 1.5, LAST_RETRY_MS)) {
      stop.signal.throwIfAborted();
      try {
        return await attempt(address, stop.signal);
      } catch (error) {
        stop.signal.throwIfAborted();
        failure = HakoError.from(error);
      }
      await pause(wait, stop.signal);
    }
  } finally {
    clearTimeout(timer);
    options.signal?.removeEventListener("abort", onAbort);
  }
}

async function attempt(address: AgentAddress, signal: AbortSignal): Promise<AgentClient> {
  const transport = await openTransport(address, signal);
  const client = new AgentClient(new TtrpcClient(transport, { maxMessageLength: MAX_MESSAGE_LENGTH }));
  try {
    const { status } = await client.health.check({}, { signal, timeoutMs: CHECK_TIMEOUT_MS });
    if (status === HealthCheckResponse_ServingStatus.SERVING) return client;
    throw new HakoError("UNAVAILABLE", `The agent does not serve: its status is ${status}`);
  } catch (error) {
    client.close();
    throw error;
  }
}

function goneCause(reason: unknown): Error | undefined {
  if (reason instanceof Error || reason === undefined) return reason;
  return new Error(typeof reason === "string" ? reason : Bun.inspect(reason));
}

async function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, milliseconds);
  signal.addEventListener("abort", () => resolve(), { once: true });
  await promise;
  clearTimeout(timer);
}
