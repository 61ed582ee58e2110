/** The closed set of error kinds, in the words of gRPC (google.rpc.Code). */
export type ErrorCode =
  | "CANCELLED"
  | "UNKNOWN"
  | "INVALID_ARGUMENT"
  | "DEADLINE_EXCEEDED"
  | "NOT_FOUND"
  | "ALREADY_EXISTS"
  | "PERMISSION_DENIED"
  | "RESOURCE_EXHAUSTED"
  | "FAILED_PRECONDITION"
  | "ABORTED"
  | "OUT_OF_RANGE"
  | "UNIMPLEMENTED"
  | "INTERNAL"
  | "UNAVAILABLE"
  | "DATA_LOSS"
  | "UNAUTHENTICATED";

/**
 * The one error that hako's functions throw.
 *
 * The message is in sentence case without a period, names the action, quotes values and never repeats its
 * cause: `Cannot start container "c1": state is "stopped"`. Callers decide by {@link code}, never by text.
 */
export class HakoError extends Error {
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = "HakoError";
    this.code = code;
  }

  /** Turns anything caught into a HakoError; an abort becomes CANCELLED, an unknown thing gets `code`. */
  static from(caught: unknown, code: ErrorCode = "INTERNAL"): HakoError {
    if (caught instanceof HakoError) return caught;
    // Undoing failed as well: what failed first is the reason.
    if (caught instanceof SuppressedError) return HakoError.from(caught.suppressed, code);
    if (caught instanceof Error && caught.name === "AbortError") {
      return new HakoError("CANCELLED", "Cancelled", { cause: caught });
    }
    if (caught instanceof Error) return new HakoError(code, caught.message, { cause: caught });
    return new HakoError(code, String(caught));
  }

  /** The message followed by those of its causes, joined by ": ", for a person to read. */
  get fullMessage(): string {
    const parts: string[] = [this.message];
    for (let cause = this.cause; cause instanceof Error; cause = cause.cause) {
      if (!parts.includes(cause.message)) parts.push(cause.message);
    }
    return parts.join(": ");
  }
}
