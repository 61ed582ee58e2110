const POLYNOMIAL = 0x82f63b78;

function makeTable(): Uint32Array {
  const table = new Uint32Array(256);
  for (let byte = 0; byte < 256; byte++) {
    let value = byte;
    for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ POLYNOMIAL : value >>> 1;
    table[byte] = value;
  }
  return table;
}

/** CRC-32C (Castagnoli, reflected) as the kernel's crc32c(): starts from `seed`, no final inversion. */
export function crc32c(seed: number, bytes: Uint8Array): number {
  const table = makeTable();
  let value = seed;
  for (const byte of bytes) value = (value >>> 8) ^ (table[(value ^ byte) & 0xff] ?? 0);
  return value >>> 0;
}
