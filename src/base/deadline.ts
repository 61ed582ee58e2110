import { HakoError } from "./error.ts";

/**
 * Runs `work` with a signal that fires after `timeoutMs` or with the outer signal.
 * Throws DEADLINE_EXCEEDED `Cannot <what>: no answer within <n> ms` when the time is over, even if the work
 * ignores its signal.
 */
export async function withDeadline<T>(
  timeoutMs: number,
  what: string,
  work: (signal: AbortSignal) => Promise<T>,
  outer?: AbortSignal,
): Promise<T> {
  const own = new AbortController();
  const signal = outer ? AbortSignal.any([outer, own.signal]) : own.signal;
  const { promise: expired, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => {
    const error = new HakoError("DEADLINE_EXCEEDED", `Cannot ${what}: no answer within ${timeoutMs} ms`);
    own.abort(error);
    reject(error);
  }, timeoutMs);
  try {
    return await Promise.race([work(signal), expired]);
  } catch (error) {
    throw own.signal.aborted ? own.signal.reason : error;
  } finally {
    clearTimeout(timer);
  }
}
