/**
 * File names on Linux are bytes, not text. Inside src/image a name is a "byte string": a string with one
 * character of U+0000 to U+00FF a byte. It keeps every name, sorts as bytes do, and is stored compactly.
 */

/** The byte string of a slice of `bytes`. */
export function decodeByteString(bytes: Uint8Array, start = 0, end = bytes.length): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("latin1", start, end);
}

export function encodeByteString(text: string): Buffer {
  return Buffer.from(text, "latin1");
}

/** A byte string with a NUL behind it, for the kernel. */
export function cByteString(text: string): Buffer {
  return Buffer.from(`${text}\0`, "latin1");
}

/** From ordinary text: its UTF-8 bytes. */
export function byteString(text: string): string {
  return Buffer.from(text).toString("latin1");
}

/** For messages: as UTF-8 text with control characters escaped, shortened to 200 characters. */
export function printable(name: string): string {
  const text = JSON.stringify(encodeByteString(name).toString()).slice(1, -1);
  return text.length > 200 ? `${text.slice(0, 200)}…` : text;
}
