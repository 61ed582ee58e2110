/** Sets the byte at `at` so that all bytes sum up to 0 modulo 256, as ACPI and the MP specification ask. */
export function withChecksum(bytes: Buffer, at: number): Buffer {
  bytes[at] = 0;
  bytes[at] = -bytes.reduce((sum, byte) => sum + byte, 0) & 0xff;
  return bytes;
}
