import { HakoError } from "#base/error.ts";
import type { KeyWrap } from "./hub.ts";

/** The provider's name in ocicrypt's parameters, which the confidential-containers project has given it. */
const PROVIDER = "attestation-agent";
const SIZE_MAX = 1024 * 1024;

/** Reads a message of the protocol. Throws INVALID_ARGUMENT. */
function parse(bytes: Uint8Array): Record<string, unknown> {
  if (bytes.length > SIZE_MAX)
    throw new HakoError("INVALID_ARGUMENT", "Cannot read a key provider's message: it is too long");
  try {
    const value: unknown = JSON.parse(Buffer.from(bytes).toString("utf8"));
    if (typeof value === "object" && value !== null) return value as Record<string, unknown>;
  } catch (cause) {
    throw new HakoError("INVALID_ARGUMENT", "Cannot read a key provider's message: it is no JSON", { cause });
  }
  throw new HakoError("INVALID_ARGUMENT", "Cannot read a key provider's message: it is no object");
}

function member(value: unknown, ...path: string[]): unknown {
  return path.reduce<unknown>(
    (inner, name) =>
      typeof inner === "object" && inner !== null ? (inner as Record<string, unknown>)[name] : undefined,
    value,
  );
}

/** Bytes as base64 (ocicrypt in Go) or as an array of numbers (ocicrypt in Rust). */
function bytesOf(value: unknown, what: string): Uint8Array {
  if (typeof value === "string") return Buffer.from(value, "base64");
  const isList =
    Array.isArray(value) && value.every((item) => Number.isInteger(item) && item >= 0 && item <= 255);
  if (isList) return Uint8Array.from(value as number[]);
  throw new HakoError("INVALID_ARGUMENT", `Cannot read a key provider's message: it has no ${what}`);
}

function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("base64");
}

function encode(message: unknown): Uint8Array {
  return Buffer.from(JSON.stringify(message));
}

export function encodeUnwrapInput(packet: Uint8Array): Uint8Array {
  const dc = { Parameters: { [PROVIDER]: [base64(Buffer.from(PROVIDER))] } };
  return encode({
    op: "keyunwrap",
    keywrapparams: { ec: null, optsdata: null },
    keyunwrapparams: { dc, annotation: base64(packet) },
  });
}

/** The annotation packet of an unwrap request. */
export function decodeUnwrapInput(bytes: Uint8Array): Uint8Array {
  const annotation = member(parse(bytes), "keyunwrapparams", "annotation");
  return bytesOf(annotation, "annotation packet");
}

export function encodeUnwrapOutput(key: Uint8Array): Uint8Array {
  return encode({ keyunwrapresults: { optsdata: [...key] } });
}

export function decodeUnwrapOutput(bytes: Uint8Array): Uint8Array {
  return bytesOf(member(parse(bytes), "keyunwrapresults", "optsdata"), "key");
}

export function encodeWrapInput({ key, keyId }: KeyWrap): Uint8Array {
  const ec = { Parameters: { [PROVIDER]: [base64(Buffer.from(keyId))] }, DecryptConfig: { Parameters: {} } };
  return encode({
    op: "keywrap",
    keywrapparams: { ec, optsdata: base64(key) },
    keyunwrapparams: { dc: null, annotation: null },
  });
}

export function decodeWrapInput(bytes: Uint8Array): KeyWrap {
  const message = parse(bytes);
  const parameters = member(message, "keywrapparams", "ec", "Parameters", PROVIDER);
  const keyId = Array.isArray(parameters) ? parameters[0] : undefined;
  return {
    key: bytesOf(member(message, "keywrapparams", "optsdata"), "key"),
    keyId: Buffer.from(bytesOf(keyId, "name of the key that wraps")).toString(),
  };
}

export function encodeWrapOutput(packet: Uint8Array): Uint8Array {
  return encode({ keywrapresults: { annotation: [...packet] } });
}

export function decodeWrapOutput(bytes: Uint8Array): Uint8Array {
  return bytesOf(member(parse(bytes), "keywrapresults", "annotation"), "annotation packet");
}
