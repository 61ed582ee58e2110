import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url");

/** A key pair that signs sealed secrets. */
export async function makeSigningKey(): Promise<{
  sign(text: string): Promise<string>;
  publicJwk: object;
}> {
  const algorithm = { name: "ECDSA", namedCurve: "P-256" };
  const pair = await crypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  return {
    publicJwk: await crypto.subtle.exportKey("jwk", pair.publicKey),
    async sign(text) {
      const bytes = await crypto.subtle.sign(
        { name: "ECDSA", hash: "SHA-256" },
        pair.privateKey,
        Buffer.from(text),
      );
      return Buffer.from(bytes).toString("base64url");
    },
  };
}

/** Encrypts as A256GCM, the tag behind the text. */
export async function encryptGcm(key: Uint8Array, iv: Uint8Array, text: Uint8Array): Promise<Buffer> {
  const secret = await crypto.subtle.importKey("raw", Uint8Array.from(key), "AES-GCM", false, ["encrypt"]);
  const data = await crypto.subtle.encrypt(
    { name: "AES-GCM", iv: Uint8Array.from(iv) },
    secret,
    Uint8Array.from(text),
  );
  return Buffer.from(data);
}

export type Seal = (payload: object, header?: object) => Promise<string>;

/** A directory that configures a hub with an offline key broker and a signing key, and what seals secrets for it. */
export async function makeHubDirectory(
  directory: string,
  extra = "",
): Promise<{ configFile: string; seal: Seal }> {
  const { sign, publicJwk } = await makeSigningKey();
  const resources = {
    "default/key/kek": Buffer.alloc(32, 7).toString("base64"),
    "default/key/volume": Buffer.from(crypto.getRandomValues(new Uint8Array(64))).toString("base64"),
    "default/key/signing": Buffer.from(JSON.stringify(publicJwk)).toString("base64"),
    "default/secret/password": Buffer.from("open sesame").toString("base64"),
    "default/secret/binary": Buffer.from([0, 255, 254]).toString("base64"),
  };
  mkdirSync(join(directory, "sealed-secret"), { recursive: true });
  writeFileSync(join(directory, "sealed-secret/provisioned"), JSON.stringify(publicJwk));
  writeFileSync(join(directory, "resources.json"), JSON.stringify(resources));
  const configFile = join(directory, "cdh.toml");
  writeFileSync(
    configFile,
    `socket = "unix://${directory}/cdh.sock"
base_directory = "${directory}"
${extra}
[kbc]
name = "offline_fs_kbc"
files = ["${directory}/resources.json", "${directory}/absent.json"]
`,
  );
  const seal: Seal = async (payload, header = {}) => {
    const signed = `${encode({ alg: "ES256", kid: "kbs:///default/key/signing", ...header })}.${encode(payload)}`;
    return `sealed.${signed}.${await sign(signed)}`;
  };
  return { configFile, seal };
}

/** The payload of a secret that names a resource. */
export function vault(name: string, more: object = {}): object {
  return {
    version: "0.1.0",
    type: "vault",
    provider: "kbs",
    name,
    provider_settings: {},
    annotations: {},
    ...more,
  };
}
