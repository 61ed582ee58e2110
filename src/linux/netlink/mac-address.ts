import { HakoError } from "#base/error.ts";

/** ETH_ALEN: bytes of an Ethernet address. */
const LENGTH = 6;

/** Six bytes from `02:00:5e:00:53:01`. Throws INVALID_ARGUMENT. */
export function encodeMac(text: string): Buffer {
  if (!/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(text)) {
    throw new HakoError("INVALID_ARGUMENT", `Cannot read "${text}" as a hardware address`);
  }
  return Buffer.from(text.replaceAll(":", ""), "hex");
}

/** Lower case with colons; undefined for what is no Ethernet address. */
export function decodeMac(bytes: Uint8Array): string | undefined {
  if (bytes.length !== LENGTH) return undefined;
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(":");
}
