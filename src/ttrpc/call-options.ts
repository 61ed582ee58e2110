import { HakoError } from "#base/error.ts";
import type { Metadata } from "./envelope.ts";

/** How a caller wants one call made. */
export interface CallOptions {
  /**
   * Ends the call for the caller with CANCELLED. ttrpc has no message for that: the server goes on until the
   * deadline it was told or the end of the connection.
   */
  readonly signal?: AbortSignal;
  /** After this many milliseconds both sides give the call up: DEADLINE_EXCEEDED. No limit when absent. */
  readonly timeoutMs?: number;
  /** Sent beside the request; keys in lower case. */
  readonly metadata?: Metadata;
}

/** setTimeout takes at most this many milliseconds (24.8 days); longer deadlines run on the server alone. */
export const MAX_TIMER_MS = 0x7fff_ffff;

/** The wire form of a time limit: 0 when there is none. */
export function timeoutNano(timeoutMs: number | undefined): bigint {
  if (timeoutMs === undefined) return 0n;
  const nanoseconds = BigInt(Math.ceil(timeoutMs * 1e6));
  const limit = (1n << 63n) - 1n;
  return nanoseconds < limit ? nanoseconds : limit;
}

/**
 * Watches over one call: `fail` is called at most once, with CANCELLED or DEADLINE_EXCEEDED. Returns what ends
 * the watch. Throws CANCELLED when the signal has fired already, INVALID_ARGUMENT for a timeout that is no time.
 */
export function watchCall(name: string, options: CallOptions, fail: (error: HakoError) => void): () => void {
  const { signal, timeoutMs } = options;
  checkTimeout(timeoutMs);
  if (signal?.aborted) throw cancelled(name, signal);
  if (signal === undefined && timeoutMs === undefined) return nothing;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const onAbort = () => fail(cancelled(name, signal));
  signal?.addEventListener("abort", onAbort, { once: true });
  if (timeoutMs !== undefined && timeoutMs <= MAX_TIMER_MS) {
    timer = setTimeout(() => fail(expired(name, timeoutMs)), timeoutMs);
  }
  return () => {
    clearTimeout(timer);
    signal?.removeEventListener("abort", onAbort);
  };
}

function checkTimeout(timeoutMs: number | undefined): void {
  if (timeoutMs === undefined || (timeoutMs > 0 && timeoutMs <= Number.MAX_SAFE_INTEGER)) return;
  throw new HakoError("INVALID_ARGUMENT", `Cannot make a call with a timeout of ${timeoutMs} ms`);
}

function nothing(): void {}

function cancelled(name: string, signal: AbortSignal | undefined): HakoError {
  return new HakoError("CANCELLED", `Cannot call ${name}: cancelled`, { cause: signal?.reason });
}

function expired(name: string, timeoutMs: number): HakoError {
  return new HakoError("DEADLINE_EXCEEDED", `Cannot call ${name}: no answer within ${timeoutMs} ms`);
}
