import { argon2Sync, pbkdf2Sync, timingSafeEqual } from "node:crypto";
import { HakoError } from "#base/error.ts";
import { LUKS2_KEYSLOTS_OFFSET } from "#linux/luks2.ts";
import { mergeKey, splitKey } from "./anti-forensic.ts";
import { xts } from "./xts.ts";

const ENCRYPTION = "aes-xts-plain64";
const KEY_SIZE = 64;
const STRIPES = 4000;
const SALT_SIZE = 32;
/** The keys that come here are random, not words that could be guessed: many iterations would only cost time. */
const ITERATIONS = 1000;
/** The area of a slot is padded to pages. */
const AREA_SIZE = Math.ceil((KEY_SIZE * STRIPES) / 4096) * 4096;
const MEMORY_MAX_KIB = 1024 * 1024;
const ITERATIONS_MAX = 10_000_000;

/** How a key slot looks in the metadata; all of it is the disk's word and is checked. */
export interface KeySlot {
  readonly type: string;
  readonly key_size: number;
  readonly af: { readonly type: string; readonly stripes: number; readonly hash: string };
  readonly area: {
    readonly offset: string;
    readonly size: string;
    readonly encryption: string;
    readonly key_size: number;
  };
  readonly kdf: {
    readonly type: string;
    readonly salt: string;
    readonly hash?: string;
    readonly iterations?: number;
    readonly time?: number;
    readonly memory?: number;
    readonly cpus?: number;
  };
}

export interface KeyDigest {
  readonly type: string;
  readonly hash: string;
  readonly iterations: number;
  readonly salt: string;
  readonly digest: string;
}

/** A slot that a passphrase opens, and a digest by which the volume's key is known. */
export function makeKeySlot(volumeKey: Uint8Array, passphrase: Uint8Array) {
  const [slotSalt, digestSalt] = [randomBytes(SALT_SIZE), randomBytes(SALT_SIZE)];
  const slotKey = pbkdf2Sync(passphrase, slotSalt, ITERATIONS, KEY_SIZE, "sha256");
  const material = Buffer.alloc(AREA_SIZE);
  xts("encrypt", slotKey, splitKey(volumeKey, STRIPES)).copy(material);
  slotKey.fill(0);
  const slot: KeySlot = {
    type: "luks2",
    key_size: KEY_SIZE,
    af: { type: "luks1", stripes: STRIPES, hash: "sha256" },
    area: {
      offset: String(LUKS2_KEYSLOTS_OFFSET),
      size: String(AREA_SIZE),
      encryption: ENCRYPTION,
      key_size: KEY_SIZE,
    },
    kdf: { type: "pbkdf2", hash: "sha256", iterations: ITERATIONS, salt: slotSalt.toString("base64") },
  };
  const digest: KeyDigest = {
    type: "pbkdf2",
    hash: "sha256",
    iterations: ITERATIONS,
    salt: digestSalt.toString("base64"),
    digest: pbkdf2Sync(volumeKey, digestSalt, ITERATIONS, 32, "sha256").toString("base64"),
  };
  const keys = {
    keyslots: { "0": { ...slot, area: { type: "raw", ...slot.area } } },
    digests: { "0": { ...digest, keyslots: ["0"], segments: ["0"] } },
  };
  return { keys, area: { offset: LUKS2_KEYSLOTS_OFFSET, data: material } };
}

function randomBytes(count: number): Buffer {
  return Buffer.from(crypto.getRandomValues(new Uint8Array(count)));
}

/**
 * The volume's key that a passphrase opens, from a slot and what its area holds. Undefined when the passphrase is
 * another one. Throws UNIMPLEMENTED for algorithms that are not there.
 */
export function openKeySlot(
  { af, area, kdf, key_size }: KeySlot,
  material: Uint8Array,
  passphrase: Uint8Array,
  digest: KeyDigest,
): Buffer | undefined {
  if (area.encryption !== ENCRYPTION || area.key_size !== KEY_SIZE || key_size !== KEY_SIZE) {
    refuse(`key slots encrypted by "${area.encryption}" with ${area.key_size} bytes`);
  }
  if (af.type !== "luks1" || af.hash !== "sha256" || !(af.stripes >= 1 && af.stripes <= STRIPES))
    refuse(`splitter "${af.type}", "${af.hash}"`);
  const slotKey = deriveKey(kdf, passphrase);
  const size = Math.ceil((key_size * af.stripes) / 512) * 512;
  const key = mergeKey(xts("decrypt", slotKey, material.subarray(0, size)), key_size, af.stripes);
  slotKey.fill(0);
  const wanted = Buffer.from(digest.digest, "base64");
  if (digest.type !== "pbkdf2" || !(digest.iterations <= ITERATIONS_MAX)) refuse(`digest "${digest.type}"`);
  const found = pbkdf2Sync(
    key,
    Buffer.from(digest.salt, "base64"),
    digest.iterations,
    wanted.length,
    digest.hash,
  );
  return timingSafeEqual(found, wanted) ? key : undefined;
}

function deriveKey(kdf: KeySlot["kdf"], passphrase: Uint8Array): Buffer {
  const salt = Buffer.from(kdf.salt, "base64");
  const { type, iterations = 0, time = 0, memory = 0, cpus = 0 } = kdf;
  if (type === "pbkdf2" && iterations >= 1 && iterations <= ITERATIONS_MAX) {
    return pbkdf2Sync(passphrase, salt, iterations, KEY_SIZE, kdf.hash ?? "sha256");
  }
  if ((type === "argon2id" || type === "argon2i") && memory <= MEMORY_MAX_KIB && time <= 1000 && cpus <= 64) {
    const parameters = {
      message: passphrase,
      nonce: salt,
      parallelism: cpus,
      tagLength: KEY_SIZE,
      memory,
      passes: time,
    };
    return argon2Sync(type, parameters);
  }
  return refuse(`key derivation "${type}"`);
}

function refuse(what: string): never {
  throw new HakoError("UNIMPLEMENTED", `Cannot open a LUKS2 volume: ${what} is not there`);
}
