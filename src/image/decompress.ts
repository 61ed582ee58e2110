import type { Transform } from "node:stream";
import { constants, createGunzip, createZstdDecompress } from "node:zlib";
import { HakoError } from "#base/error.ts";
import { readAhead } from "./read-ahead.ts";

export type Compression = "none" | "gzip" | "zstd";

/** Bytes of unpacked data at a time. */
const PIECE_SIZE = 1024 * 1024;
/** Longest history a zstd frame may ask for (2^27 bytes, what `zstd` itself unpacks without being told to). */
const ZSTD_WINDOW_LOG_MAX = 27;

/** The compression that a stream's first bytes tell (RFC 1952, RFC 8878); skippable zstd frames count too. */
export function detectCompression(start: Uint8Array): Compression {
  if (start[0] === 0x1f && start[1] === 0x8b) return "gzip";
  const magic = start.length < 4 ? 0 : new DataView(start.buffer, start.byteOffset, 4).getUint32(0, true);
  if (magic === 0xfd2fb528 || (magic & 0xfffffff0) >>> 0 === 0x184d2a50) return "zstd";
  return "none";
}

/**
 * The compression that a layer's media type promises; undefined when the type leaves it open. Throws
 * UNIMPLEMENTED for types that are not layers of a file system.
 */
export function compressionOf(mediaType: string): Compression | undefined {
  const match =
    /^application\/vnd\.(?:oci\.image\.layer\.(?:nondistributable\.)?v1\.tar|docker\.image\.rootfs\.(?:foreign\.)?diff\.tar)([.+]\w+)?$/.exec(
      mediaType,
    );
  if (mediaType === "") return undefined;
  if (match && match[1] === undefined) return "none";
  if (match?.[1] === "+gzip" || match?.[1] === ".gzip") return "gzip";
  if (match?.[1] === "+zstd" || match?.[1] === ".zstd") return "zstd";
  throw new HakoError("UNIMPLEMENTED", `Cannot unpack a layer of type ${JSON.stringify(mediaType)}`);
}

/**
 * Unpacks in large pieces. A piece that goes in must be valid until the next is asked for, one that comes out stays
 * valid, except without compression. Throws DATA_LOSS for a damaged stream; `what` names it.
 */
export async function* decompress(
  pieces: AsyncGenerator<Uint8Array>,
  compression: Compression,
  what: string,
): AsyncGenerator<Uint8Array> {
  if (compression === "none") {
    yield* pieces;
    return;
  }
  const unpacker = compression === "gzip" ? createGunzip({ chunkSize: PIECE_SIZE }) : zstdUnpacker();
  const fed = feed(unpacker, pieces);
  try {
    yield* readAhead(unpacker);
  } catch (cause) {
    if (cause instanceof HakoError) throw cause;
    throw new HakoError("DATA_LOSS", `Cannot unpack ${what}: its ${compression} data is damaged`, { cause });
  } finally {
    unpacker.destroy();
    await fed;
  }
}

/** Writes all pieces into a stream, each only when the one before is used up. Failures go into the stream. */
async function feed(unpacker: Transform, pieces: AsyncGenerator<Uint8Array>): Promise<void> {
  const closed = new Promise<void>((resolve) => unpacker.once("close", resolve));
  try {
    for await (const piece of pieces) {
      await Promise.race([closed, new Promise<void>((resolve) => unpacker.write(piece, () => resolve()))]);
      if (unpacker.destroyed) return;
    }
    unpacker.end();
  } catch (error) {
    unpacker.destroy(HakoError.from(error));
  }
}

function zstdUnpacker() {
  const params = { [constants.ZSTD_d_windowLogMax]: ZSTD_WINDOW_LOG_MAX };
  return createZstdDecompress({ chunkSize: PIECE_SIZE, params });
}
