import { HakoError } from "#base/error.ts";

/** Computes the digest of bytes as they pass and holds it against the expected one (`sha256:…`, `sha512:…`). */
export class DigestCheck {
  readonly #expected: string;
  readonly #algorithm: "sha256" | "sha512";
  readonly #hasher: Bun.CryptoHasher;

  /** `expected` has been checked by isDigest. */
  constructor(expected: string) {
    this.#expected = expected;
    this.#algorithm = expected.startsWith("sha512:") ? "sha512" : "sha256";
    this.#hasher = new Bun.CryptoHasher(this.#algorithm);
  }

  update(bytes: Uint8Array): void {
    this.#hasher.update(bytes);
  }

  /** Throws DATA_LOSS when the bytes were not the expected ones; `what` names them. */
  verify(what: string): void {
    const actual = `${this.#algorithm}:${this.#hasher.digest("hex")}`;
    if (actual === this.#expected) return;
    throw new HakoError(
      "DATA_LOSS",
      `Cannot use ${what}: its digest is ${actual} instead of ${this.#expected}`,
    );
  }
}

/** `sha256:` and the hex digest. */
export function sha256Digest(bytes: Uint8Array | string): string {
  return `sha256:${new Bun.CryptoHasher("sha256").update(bytes).digest("hex")}`;
}
