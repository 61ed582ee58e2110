import { HakoError } from "#base/error.ts";
import { A256GCM, decrypt, encrypt } from "./cipher.ts";
import { JsonObject } from "./json-object.ts";

const WHAT = "an annotation packet";
const VERSION = "0.1.0";
const PROVIDER = "kbs";

/** A resource of the key broker, by its URI. */
export type ResourceSource = (uri: string) => Promise<Uint8Array>;

/** Encrypts a key of image layers: an annotation packet of version 2. */
export async function wrapLayerKey(
  key: Uint8Array,
  keyId: string,
  resource: ResourceSource,
): Promise<Uint8Array> {
  const { iv, data } = await encrypt(await resource(keyId), key);
  const packet = {
    version: VERSION,
    kid: keyId,
    wrapped_data: Buffer.from(data).toString("base64"),
    provider: PROVIDER,
    iv: Buffer.from(iv).toString("base64"),
    wrap_type: A256GCM,
    provider_settings: {},
    annotations: {},
  };
  return Buffer.from(JSON.stringify(packet));
}

/** Decrypts the key of image layers: packets of version 1 ({kid, wrapped_data, iv, wrap_type}) and 2. */
export async function unwrapLayerKey(packet: Uint8Array, resource: ResourceSource): Promise<Uint8Array> {
  const fields = JsonObject.parse(packet, WHAT);
  const version = fields.find("version") ?? VERSION;
  const provider = fields.find("provider") ?? PROVIDER;
  if (version !== VERSION)
    throw new HakoError("INVALID_ARGUMENT", `Cannot read ${WHAT}: version "${version}" is unknown`);
  if (provider !== PROVIDER) {
    throw new HakoError(
      "UNIMPLEMENTED",
      `Cannot unwrap a key of provider "${provider}": only "${PROVIDER}" is there`,
    );
  }
  const wrapping = await resource(fields.string("kid"));
  return await decrypt(
    fields.string("wrap_type"),
    wrapping,
    fields.bytes("iv"),
    fields.bytes("wrapped_data"),
  );
}
