import { HakoError } from "#base/error.ts";
import type { Process } from "#runtime/process.ts";
import { logger } from "#telemetry/log.ts";
import type { StandardInput } from "./standard-input.ts";
import { isReaderGone, type StandardOutput } from "./standard-output.ts";

const log = logger("attach");

/** Bytes asked for at a time; well below what one message of the agent protocol may have. */
const READ_BYTES = 256 * 1024;

export interface Attachment {
  /** Absent: the process gets no input. */
  readonly stdin?: StandardInput;
  readonly stdout: StandardOutput;
  readonly stderr: StandardOutput;
  /** Called once with the first bytes. */
  readonly onFirstByte?: () => void;
}

/**
 * Joins the streams of a process with ours until it has ended and all its output is written. Resolves to the exit
 * code, or to 141 when nobody reads what we write any more: the process then has lost its output and should go.
 */
export async function attachProcess(
  process: Process,
  exited: Promise<number>,
  attachment: Attachment,
): Promise<number> {
  const stop = new AbortController();
  const { stdin, stdout, stderr } = attachment;
  const onChunk = once(attachment.onFirstByte);
  const outputs = [
    pumpOutput((signal) => process.readStdout(READ_BYTES, signal), stdout, onChunk, stop.signal),
  ];
  if (!process.terminal) {
    outputs.push(
      pumpOutput((signal) => process.readStderr(READ_BYTES, signal), stderr, onChunk, stop.signal),
    );
  }
  if (stdin) void pumpInput(stdin, process, stop.signal);
  try {
    const [exitCode] = await Promise.all([exited, ...outputs]);
    return exitCode;
  } catch (error) {
    if (!(error instanceof ReaderGone)) throw error;
    return SIGPIPE_EXIT_CODE;
  } finally {
    stop.abort();
  }
}

/** 128 + SIGPIPE: what a shell shows for a program whose reader has gone. */
const SIGPIPE_EXIT_CODE = 141;

/** Nobody reads our standard output any more. */
class ReaderGone extends HakoError {
  constructor() {
    super("CANCELLED", "Nobody reads the output any more");
  }
}

/** Moves output until its end. What nobody reads on standard error is dropped. */
async function pumpOutput(
  read: (signal: AbortSignal) => Promise<Uint8Array>,
  output: StandardOutput,
  onChunk: () => void,
  signal: AbortSignal,
): Promise<void> {
  for (;;) {
    const chunk = await read(signal);
    if (chunk.length === 0) return;
    onChunk();
    try {
      await output.write(chunk);
    } catch (error) {
      if (!isReaderGone(error)) throw error;
      throw new ReaderGone();
    }
  }
}

/** Moves input until its end, until the process no longer reads, or until the signal. */
async function pumpInput(input: StandardInput, process: Process, signal: AbortSignal): Promise<void> {
  try {
    for (;;) {
      const chunk = await input.read(signal);
      if (chunk.length === 0) return await process.closeStdin(signal);
      await process.writeStdin(chunk, signal);
    }
  } catch (error) {
    // The process may end, or close its input, at any moment; only its exit code counts then.
    log.debug("input ended", { error });
  }
}

function once(action: (() => void) | undefined): () => void {
  let pending = action;
  return () => {
    pending?.();
    pending = undefined;
  };
}
