/** A process in a container: its first one, or one that was added by exec. */
export interface Process {
  /** The container's id for the first process. */
  readonly id: string;
  readonly terminal: boolean;
  /**
   * At most `maxBytes` of what the process wrote; waits until there is something. Empty at the end.
   * With a terminal all output is standard output.
   */
  readStdout(maxBytes: number, signal?: AbortSignal): Promise<Uint8Array>;
  readStderr(maxBytes: number, signal?: AbortSignal): Promise<Uint8Array>;
  /** Resolves when all bytes were taken; UNAVAILABLE when the process no longer reads. */
  writeStdin(data: Uint8Array, signal?: AbortSignal): Promise<void>;
  closeStdin(signal?: AbortSignal): Promise<void>;
  resize(columns: number, rows: number, signal?: AbortSignal): Promise<void>;
  /** Sends a signal by number. NOT_FOUND when the process has ended. */
  kill(signalNumber: number, signal?: AbortSignal): Promise<void>;
  /** Exit code, 128+n after signal n. May be called any number of times. */
  wait(signal?: AbortSignal): Promise<number>;
}
