import { HakoError } from "#base/error.ts";

const KEY_SIZE = 32;
const IV_SIZE = 12;

/** AES-256 in Galois counter mode ("A256GCM", RFC 7518 section 5.3), the tag behind the text. */
export const A256GCM = "A256GCM";

async function importKey(key: Uint8Array, usage: "encrypt" | "decrypt"): Promise<CryptoKey> {
  if (key.length !== KEY_SIZE) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Cannot use a key of ${key.length} bytes: ${A256GCM} takes ${KEY_SIZE}`,
    );
  }
  return await crypto.subtle.importKey("raw", Uint8Array.from(key), "AES-GCM", false, [usage]);
}

/** Throws INVALID_ARGUMENT for another algorithm or sizes that cannot be, PERMISSION_DENIED when the tag is wrong. */
export async function decrypt(
  algorithm: string,
  key: Uint8Array,
  iv: Uint8Array,
  data: Uint8Array,
): Promise<Uint8Array> {
  if (algorithm !== A256GCM)
    throw new HakoError("INVALID_ARGUMENT", `Cannot decrypt by "${algorithm}": only ${A256GCM} is known`);
  if (iv.length !== IV_SIZE)
    throw new HakoError("INVALID_ARGUMENT", `Cannot use an IV of ${iv.length} bytes`);
  const secret = await importKey(key, "decrypt");
  try {
    return new Uint8Array(
      await crypto.subtle.decrypt(
        { name: "AES-GCM", iv: Uint8Array.from(iv) },
        secret,
        Uint8Array.from(data),
      ),
    );
  } catch (cause) {
    throw new HakoError(
      "PERMISSION_DENIED",
      "Cannot decrypt: the key is another one, or the data was changed",
      { cause },
    );
  }
}

/** Encrypts with a random IV. */
export async function encrypt(
  key: Uint8Array,
  data: Uint8Array,
): Promise<{ iv: Uint8Array; data: Uint8Array }> {
  const iv = crypto.getRandomValues(new Uint8Array(IV_SIZE));
  const secret = await importKey(key, "encrypt");
  const encrypted = await crypto.subtle.encrypt({ name: "AES-GCM", iv }, secret, Uint8Array.from(data));
  return { iv, data: new Uint8Array(encrypted) };
}
