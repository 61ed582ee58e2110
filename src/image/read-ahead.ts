import type { Readable } from "node:stream";

/** Bytes that may wait for the reader. */
const AHEAD_BYTES = 8 * 1024 * 1024;

/**
 * The data of a stream, taken from it as soon as it is there, so that the thread behind it goes on while the reader
 * works. (A stream's own iterator lets it wait, and joins what has gathered by copying it.) Throws the stream's
 * error.
 */
export async function* readAhead(stream: Readable): AsyncGenerator<Uint8Array> {
  const waiting: Uint8Array[] = [];
  let bytes = 0;
  let ended = false;
  let failure: Error | undefined;
  let wake = Promise.withResolvers<void>();
  stream.on("data", (piece: Uint8Array) => {
    waiting.push(piece);
    bytes += piece.length;
    if (bytes >= AHEAD_BYTES) stream.pause();
    wake.resolve();
  });
  stream.once("close", () => {
    ended = true;
    wake.resolve();
  });
  stream.once("error", (error) => {
    failure = error;
    wake.resolve();
  });
  for (;;) {
    const piece = waiting.shift();
    if (piece) {
      bytes -= piece.length;
      if (bytes < AHEAD_BYTES / 2 && stream.isPaused()) stream.resume();
      yield piece;
    } else if (failure) {
      throw failure;
    } else if (ended) {
      return;
    } else {
      wake = Promise.withResolvers<void>();
      await wake.promise;
    }
  }
}
