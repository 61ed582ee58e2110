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
  const stored = file.stream();
  const first = await stored.next();
  const compression = detectCompression(first.done ? new Uint8Array(0) : first.value);
  checkMediaType(layer, compression);
  const sameDigest = compression === "none" && layer.digest === layer.diffId;
  const blob = verifyStored(layer, first, stored, options, sameDigest);
  const check = new DigestCheck(layer.diffId);
  for await (const piece of decompress(blob, compression, layer.what)) {
    throwIfCancelled(layer, options.signal);
    countBytes(piece.length, options);
    check.update(piece);
    yield piece;
  }
  check.verify(sameDigest ? layer.what : `${layer.what} (uncompressed)`);
}

/** The stored bytes as they are read, with `first` read already; ends with an error if they were not the layer's. */
async function* verifyStored(
  layer: LayerBlob,
  first: IteratorResult<Uint8Array>,
  rest: AsyncIterator<Uint8Array>,
  options: LayerStreamOptions,
  checkedElsewhere: boolean,
): AsyncGenerator<Uint8Array> {
  const check = layer.digest !== undefined && !checkedElsewhere ? new DigestCheck(layer.digest) : undefined;
  try {
    for (let next = first; !next.done; next = await rest.next()) {
      throwIfCancelled(layer, options.signal);
      check?.update(next.value);
      options.onRead?.(next.value.length);
      yield next.value;
    }
    check?.verify(layer.what);
  } finally {
    await rest.return?.();
  }
}

function throwIfCancelled(layer: LayerBlob, signal: AbortSignal | undefined): void {
  if (!signal?.aborted) return;
  throw new HakoError("CANCELLED", `Cannot unpack ${layer.what}: cancelled`, { cause: signal.reason });
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
