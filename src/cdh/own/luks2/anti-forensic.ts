import { xor } from "./xts.ts";

/**
 * The anti-forensic splitter of LUKS (LUKS1 On-Disk Format Specification, section 2.4): a key becomes many stripes all of
 * which are needed to get it back, so that a disk that keeps some old sectors keeps no key.
 */
export function splitKey(key: Uint8Array, stripes: number): Buffer {
  const material = Buffer.alloc(key.length * stripes);
  const last = (stripes - 1) * key.length;
  for (let offset = 0; offset < last; offset += 65_536) {
    crypto.getRandomValues(material.subarray(offset, Math.min(last, offset + 65_536)));
  }
  const sum = sumStripes(material, key.length, stripes);
  xor(sum, key);
  sum.copy(material, last);
  return material;
}

export function mergeKey(material: Uint8Array, keySize: number, stripes: number): Buffer {
  const key = sumStripes(material, keySize, stripes);
  xor(key, material.subarray((stripes - 1) * keySize, stripes * keySize));
  return key;
}

/** All stripes but the last, each mixed in and diffused. */
function sumStripes(material: Uint8Array, keySize: number, stripes: number): Buffer {
  let sum: Buffer = Buffer.alloc(keySize);
  for (let stripe = 0; stripe < stripes - 1; stripe++) {
    xor(sum, material.subarray(stripe * keySize, (stripe + 1) * keySize));
    sum = diffuse(sum);
  }
  return sum;
}

const DIGEST_SIZE = 32;

function diffuse(bytes: Buffer): Buffer {
  const result = Buffer.alloc(bytes.length);
  for (let offset = 0, index = 0; offset < bytes.length; offset += DIGEST_SIZE, index++) {
    const number = Buffer.alloc(4);
    number.writeUInt32BE(index);
    const hasher = new Bun.CryptoHasher("sha256")
      .update(number)
      .update(bytes.subarray(offset, offset + DIGEST_SIZE));
    Buffer.from(hasher.digest()).copy(result, offset);
  }
  return result;
}
