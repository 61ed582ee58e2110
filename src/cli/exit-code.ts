import { HakoError } from "#base/error.ts";

/** What hako answers when the fault is its own or the caller's, not the container's; docker's convention. */
export const EXIT_HAKO_FAILED = 125;
const EXIT_NOT_EXECUTABLE = 126;
const EXIT_NOT_FOUND = 127;

/** The exit code for an error of the call that was to execute a command in a container. */
function startExitCode(error: unknown): number {
  if (!(error instanceof HakoError)) return EXIT_HAKO_FAILED;
  if (error.code === "NOT_FOUND") return EXIT_NOT_FOUND;
  return error.code === "PERMISSION_DENIED" ? EXIT_NOT_EXECUTABLE : EXIT_HAKO_FAILED;
}

/** A command that could not be executed; its exit code is not hako's ordinary one. */
export class StartFailed extends HakoError {
  readonly exitCode: number;

  constructor(cause: unknown) {
    const error = HakoError.from(cause);
    super(error.code, error.message, { cause: error.cause });
    this.exitCode = startExitCode(error);
  }
}

/** Runs the call that executes the command of a container. */
export async function executing<T>(call: Promise<T>): Promise<T> {
  try {
    return await call;
  } catch (cause) {
    throw new StartFailed(cause);
  }
}

/** The exit code of hako for an error: 125, or 126 and 127 for a command that could not be executed. */
export function exitCodeOf(error: unknown): number {
  return error instanceof StartFailed ? error.exitCode : EXIT_HAKO_FAILED;
}
