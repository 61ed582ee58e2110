import { HakoError } from "#base/error.ts";
import { formatSize } from "#base/size.ts";
import { type Compression, compressionOf, decompress, detectCompression } from "./decompress.ts";
import { DigestCheck } from "./digest.ts";
import type { LayerBlob } from "./image-source.ts";
import type { ImageLimits, UnpackBudget } from "./limits.ts";

export interface LayerStreamOptions {
  readonly limits: ImageLimits;
  readonly budget: UnpackBudget;
  readonly signal?: AbortSignal | undefined;
  /** Told how many stored bytes have been read, after each piece. */
  readonly onRead?: ((bytes: number) => void) | undefined;
}

/**
 * The tar stream of a layer: its stored bytes checked against the descriptor's digest, unpacked as their first
 * bytes say, and checked against the diff_id. The checks end with the stream, so what was made of it may be used
 * only when the stream has ended without an error. Throws DATA_LOSS, INVALID_ARGUMENT when the media type says
 * otherwise, RESOURCE_EXHAUSTED, CANCELLED.
 */
export async function* streamLayer(
  layer: LayerBlob,
  options: LayerStreamOptions,
): AsyncGenerator<Uint8Array> {
  using file = layer.open();
  const stored = file.chunks();
  const first = await stored.next();
  const start = first.done ? new Uint8Array(0) : first.value;
  const compression = detectCompression(start);
  checkMediaType(layer, compression);
  const sameDigest = compression === "none" && layer.digest === layer.diffId;
  const blob = verifyStored(layer, start, stored, options, sameDigest);
  const check = new DigestCheck(layer.diffId);
  for await (const chunk of decompress(blob, compression, layer.what)) {
    countBytes(chunk.length, options);
    check.update(chunk);
    yield chunk;
  }
  check.verify(sameDigest ? layer.what : `${layer.what} (uncompressed)`);
}

async function* verifyStored(
  layer: LayerBlob,
  start: Uint8Array,
  rest: AsyncIterable<Uint8Array>,
  options: LayerStreamOptions,
  checkedElsewhere: boolean,
): AsyncGenerator<Uint8Array> {
  const check = layer.digest !== undefined && !checkedElsewhere ? new DigestCheck(layer.digest) : undefined;
  const pass = (chunk: Uint8Array): Uint8Array => {
    if (options.signal?.aborted) {
      throw new HakoError("CANCELLED", `Cannot unpack ${layer.what}: cancelled`, {
        cause: options.signal.reason,
      });
    }
    check?.update(chunk);
    options.onRead?.(chunk.length);
    return chunk;
  };
  if (start.length > 0) yield pass(start);
  for await (const chunk of rest) yield pass(chunk);
  check?.verify(layer.what);
}

function countBytes(length: number, options: LayerStreamOptions): void {
  options.budget.unpackedBytes += length;
  if (options.budget.unpackedBytes <= options.limits.unpackedBytes) return;
  throw new HakoError(
    "RESOURCE_EXHAUSTED",
    `Cannot unpack image: its layers have more than ${formatSize(options.limits.unpackedBytes)}`,
  );
}

function checkMediaType(layer: LayerBlob, found: Compression): void {
  const promised = compressionOf(layer.mediaType);
  if (promised === undefined || promised === found) return;
  throw new HakoError(
    "INVALID_ARGUMENT",
    `Cannot unpack ${layer.what}: its type ${JSON.stringify(layer.mediaType)} says ${promised}, its data is ${found === "none" ? "not compressed" : found}`,
  );
}
