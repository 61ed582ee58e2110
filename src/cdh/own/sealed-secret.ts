import { HakoError } from "#base/error.ts";
import { SEALED_PREFIX } from "#cdh/hub.ts";
import { decrypt } from "./cipher.ts";
import { JsonObject } from "./json-object.ts";

const WHAT = "a sealed secret";
const SIZE_MAX = 1024 * 1024;
const VERSION = "0.1.0";
const PROVIDER = "kbs";
const BASE64URL = /^[A-Za-z0-9_-]+$/;

/** What unsealing needs of the hub. */
export interface SecretSource {
  /** A resource of the key broker, by its URI. */
  resource(uri: string): Promise<Uint8Array>;
  /** The public key (JWK) that a secret names: a resource, or a file that was provisioned. */
  signingKey(keyId: string): Promise<Uint8Array>;
  /** Signatures are not looked at: only for guests that cannot have a signing key. */
  readonly skipVerification: boolean;
}

/**
 * Opens a sealed secret: `sealed.` and a JWS in compact form (RFC 7515), signed by ES256 with the key that `kid` names.
 * Its payload is an envelope (a secret encrypted by a key that is itself encrypted) or a vault (the name of a resource).
 * An envelope of provider "kbs" has `annotations.iv`, the IV by which resource `key_id` decrypts `encrypted_key`.
 */
export async function unsealSecret(secret: Uint8Array, source: SecretSource): Promise<Uint8Array> {
  if (secret.length > SIZE_MAX)
    throw new HakoError("INVALID_ARGUMENT", `Cannot read ${WHAT}: it is too long`);
  const text = Buffer.from(secret).toString("latin1").trim();
  const [header = "", payload = "", signature = "", ...rest] = text.slice(SEALED_PREFIX.length).split(".");
  const wellFormed = [header, payload, signature].every((part) => BASE64URL.test(part));
  if (!text.startsWith(SEALED_PREFIX) || !wellFormed || rest.length > 0) {
    throw new HakoError("INVALID_ARGUMENT", `Cannot read ${WHAT}: it is not "sealed." and three parts`);
  }
  if (!source.skipVerification) await verify(header, payload, signature, source);
  return await open(JsonObject.parse(Buffer.from(payload, "base64url"), WHAT), source);
}

async function verify(
  header: string,
  payload: string,
  signature: string,
  source: SecretSource,
): Promise<void> {
  const fields = JsonObject.parse(Buffer.from(header, "base64url"), `the header of ${WHAT}`);
  const algorithm = fields.string("alg");
  if (algorithm !== "ES256") {
    throw new HakoError("INVALID_ARGUMENT", `Cannot read ${WHAT}: it is signed by "${algorithm}", not ES256`);
  }
  const key = await importSigningKey(await source.signingKey(fields.string("kid")));
  const signed = Buffer.from(`${header}.${payload}`);
  const bytes = Uint8Array.from(Buffer.from(signature, "base64url"));
  const good = await crypto.subtle.verify({ name: "ECDSA", hash: "SHA-256" }, key, bytes, signed);
  if (!good) throw new HakoError("PERMISSION_DENIED", "Cannot unseal a secret: its signature is wrong");
}

async function importSigningKey(bytes: Uint8Array): Promise<CryptoKey> {
  const jwk = JsonObject.parse(bytes, "a signing key");
  const [kty, crv, x, y] = ["kty", "crv", "x", "y"].map((name) => jwk.string(name));
  if (kty !== "EC" || crv !== "P-256") {
    throw new HakoError("INVALID_ARGUMENT", "Cannot use a signing key: it is not on curve P-256");
  }
  const algorithm = { name: "ECDSA", namedCurve: "P-256" };
  try {
    // Only the public part: what is provisioned may be a whole key.
    return await crypto.subtle.importKey("jwk", { kty, crv, x: x ?? "", y: y ?? "" }, algorithm, false, [
      "verify",
    ]);
  } catch (cause) {
    throw new HakoError("INVALID_ARGUMENT", "Cannot use a signing key: it is no point of the curve", {
      cause,
    });
  }
}

async function open(secret: JsonObject, source: SecretSource): Promise<Uint8Array> {
  const version = secret.string("version");
  if (version !== VERSION) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Cannot read ${WHAT}: its version is "${version}", not ${VERSION}`,
    );
  }
  const type = secret.string("type");
  if (type !== "vault" && type !== "envelope") {
    throw new HakoError("INVALID_ARGUMENT", `Cannot read ${WHAT}: type "${type}" is unknown`);
  }
  const provider = secret.string("provider");
  if (provider !== PROVIDER) {
    throw new HakoError(
      "UNIMPLEMENTED",
      `Cannot unseal a secret of provider "${provider}": only "${PROVIDER}" is there`,
    );
  }
  return type === "vault" ? await source.resource(secret.string("name")) : await openEnvelope(secret, source);
}

async function openEnvelope(secret: JsonObject, source: SecretSource): Promise<Uint8Array> {
  const algorithm = secret.string("wrap_type");
  const wrapping = await source.resource(secret.string("key_id"));
  const keyIv = secret.object("annotations").bytes("iv");
  const key = await decrypt(algorithm, wrapping, keyIv, secret.bytes("encrypted_key"));
  return await decrypt(algorithm, key, secret.bytes("iv"), secret.bytes("encrypted_data"));
}
