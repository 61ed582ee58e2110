import type { Machine } from "#policy/rego/machine.ts";
import { exactNumber, formatJson, RegoObject, type Value } from "#policy/rego/value.ts";
import { type BuiltinTable, made, ofString, unary } from "./builtin.ts";

const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;
const BASE64URL = /^[A-Za-z0-9_-]*={0,2}$/;

/** Text of bytes; undefined when they are not UTF-8. */
function decodeText(bytes: Uint8Array, machine: Machine): string | undefined {
  try {
    return made(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes), machine);
  } catch {
    return undefined;
  }
}

/** JSON.parse that keeps integers exact. */
function parseJson(text: string): Value | undefined {
  try {
    return JSON.parse(text, (_key, value: unknown, context?: { source?: string }) => {
      if (typeof value === "number") return exactly(value, context?.source);
      if (typeof value !== "object" || value === null || Array.isArray(value)) return value;
      return value instanceof RegoObject ? value : RegoObject.of(Object.entries(value) as [string, Value][]);
    }) as Value;
  } catch {
    return undefined;
  }
}

function exactly(value: number, source: string | undefined): number | bigint {
  const whole = source !== undefined && /^-?\d+$/.test(source) && !Number.isSafeInteger(value);
  return whole ? exactNumber(BigInt(source)) : value;
}

function hash(algorithm: "sha256" | "sha1" | "md5") {
  return ofString((text, machine) => {
    machine.step(1 + Math.floor(text.length / 64));
    return new Bun.CryptoHasher(algorithm).update(text).digest("hex");
  });
}

/** base64, hexadecimal, URL escapes, JSON, digests. */
export const encodingBuiltins: BuiltinTable = {
  "base64.encode": ofString((text, machine) => made(Buffer.from(text).toString("base64"), machine)),
  "base64.decode": ofString((text, machine) =>
    BASE64.test(text) ? decodeText(Buffer.from(text, "base64"), machine) : undefined,
  ),
  "base64.is_valid": ofString((text) => BASE64.test(text)),
  "base64url.encode": ofString((text, machine) => {
    const encoded = Buffer.from(text).toString("base64url");
    return made(encoded.padEnd(Math.ceil(encoded.length / 4) * 4, "="), machine);
  }),
  "base64url.encode_no_pad": ofString((text, machine) =>
    made(Buffer.from(text).toString("base64url"), machine),
  ),
  "base64url.decode": ofString((text, machine) =>
    BASE64URL.test(text) ? decodeText(Buffer.from(text, "base64url"), machine) : undefined,
  ),
  "hex.encode": ofString((text, machine) => made(Buffer.from(text).toString("hex"), machine)),
  "hex.decode": ofString((text, machine) =>
    /^([0-9a-fA-F]{2})*$/.test(text) ? decodeText(Buffer.from(text, "hex"), machine) : undefined,
  ),
  "urlquery.encode": ofString((text, machine) =>
    made(
      encodeURIComponent(text.toWellFormed())
        .replaceAll("%20", "+")
        .replace(/[!'()*]/g, escapeByte),
      machine,
    ),
  ),
  "urlquery.decode": ofString((text, machine) => {
    try {
      return made(decodeURIComponent(text.replaceAll("+", "%20")), machine);
    } catch {
      return undefined;
    }
  }),
  "json.marshal": unary((a, machine) => made(formatJson(a), machine)),
  "json.unmarshal": ofString((text, machine) => {
    // Short members become large.
    machine.charge(text.length * 16);
    return parseJson(text);
  }),
  "json.is_valid": ofString((text) => parseJson(text) !== undefined),
  "crypto.sha256": hash("sha256"),
  "crypto.sha1": hash("sha1"),
  "crypto.md5": hash("md5"),
};

function escapeByte(character: string): string {
  return `%${character.charCodeAt(0).toString(16).toUpperCase()}`;
}
