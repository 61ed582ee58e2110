import { type ErrorCode, HakoError } from "#base/error.ts";

/** google.rpc.Status without its details: what a ttrpc response says about the outcome of a call. */
export interface Status {
  /** google.rpc.Code; 0 for success. */
  readonly code: number;
  readonly message: string;
}

/** Characters of a message that are kept of what a peer sends, and sent to it. */
const MAX_MESSAGE_CHARACTERS = 8192;

/** Numbers of google.rpc.Code. */
const CODE_NUMBERS: Readonly<Record<ErrorCode, number>> = {
  CANCELLED: 1,
  UNKNOWN: 2,
  INVALID_ARGUMENT: 3,
  DEADLINE_EXCEEDED: 4,
  NOT_FOUND: 5,
  ALREADY_EXISTS: 6,
  PERMISSION_DENIED: 7,
  RESOURCE_EXHAUSTED: 8,
  FAILED_PRECONDITION: 9,
  ABORTED: 10,
  OUT_OF_RANGE: 11,
  UNIMPLEMENTED: 12,
  INTERNAL: 13,
  UNAVAILABLE: 14,
  DATA_LOSS: 15,
  UNAUTHENTICATED: 16,
};

const CODE_NAMES = new Map(Object.entries(CODE_NUMBERS).map(([name, number]) => [number, name as ErrorCode]));

/** The status that tells a peer of an error: its code and its message followed by those of its causes. */
export function errorToStatus(caught: unknown): Status {
  const error = HakoError.from(caught);
  return { code: CODE_NUMBERS[error.code], message: limited(error.fullMessage) };
}

/**
 * The error that a peer's status stands for; undefined for success. A code outside google.rpc.Code becomes
 * UNKNOWN. The text is the peer's: it is shortened, and control characters, which could steer a terminal, are
 * replaced.
 */
export function statusToError(status: Status | undefined): HakoError | undefined {
  if (status === undefined || status.code === 0) return undefined;
  const message = printable(limited(status.message));
  return new HakoError(
    CODE_NAMES.get(status.code) ?? "UNKNOWN",
    message === "" ? "No message given" : message,
  );
}

function limited(message: string): string {
  if (message.length <= MAX_MESSAGE_CHARACTERS) return message;
  return `${message.slice(0, MAX_MESSAGE_CHARACTERS)}…`;
}

function printable(message: string): string {
  return message.replace(/\p{Cc}/gu, (character) =>
    character === "\n" || character === "\t" ? character : "\uFFFD",
  );
}
