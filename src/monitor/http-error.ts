import { type ErrorCode, HakoError } from "#base/error.ts";

const STATUS: Partial<Readonly<Record<ErrorCode, number>>> = {
  INVALID_ARGUMENT: 400,
  OUT_OF_RANGE: 400,
  PERMISSION_DENIED: 403,
  NOT_FOUND: 404,
  ALREADY_EXISTS: 409,
  FAILED_PRECONDITION: 409,
  UNIMPLEMENTED: 501,
  UNAVAILABLE: 503,
  DEADLINE_EXCEEDED: 504,
};

/** An error as an HTTP answer: its message and those of its causes, as one line of text. */
export function errorResponse(caught: unknown): Response {
  const error = HakoError.from(caught);
  return new Response(`${error.fullMessage}\n`, { status: STATUS[error.code] ?? 500 });
}

/** Runs a handler; what it throws becomes the answer. */
export function answering<Arguments extends unknown[]>(
  handler: (...values: Arguments) => Response | Promise<Response>,
): (...values: Arguments) => Promise<Response> {
  return async (...values) => {
    try {
      return await handler(...values);
    } catch (error) {
      return errorResponse(error);
    }
  };
}
