import { HakoError } from "#base/error.ts";
import type { Any } from "#proto/google/protobuf/any.ts";

/** What ts-proto generates for a message, as far as packing needs it. */
interface Codec<T> {
  encode(message: T): { finish(): Uint8Array };
  decode(bytes: Uint8Array): T;
  fromPartial(partial: never): T;
}

/** A message with its name; containerd names types of its own by their bare full name. */
export function packAny<T>(typeUrl: string, codec: Codec<T>, message: object): Any {
  return { typeUrl, value: codec.encode(codec.fromPartial(message as never)).finish() };
}

/** The name of the message, without the host that some writers put before it. */
export function anyName({ typeUrl }: Any): string {
  return typeUrl.startsWith("types.googleapis.com/")
    ? typeUrl.slice("types.googleapis.com/".length)
    : typeUrl;
}

/** Throws INVALID_ARGUMENT. */
export function unpackAny<T>(any: Any, codec: Codec<T>, what: string): T {
  try {
    return codec.decode(any.value);
  } catch (cause) {
    throw new HakoError("INVALID_ARGUMENT", `Cannot decode ${what}`, { cause });
  }
}

/** Types of the runtime specification travel as JSON. Throws INVALID_ARGUMENT. */
export function unpackJson(any: Any | undefined, what: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(Buffer.from(any?.value ?? []).toString());
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return { ...value };
  } catch (cause) {
    throw new HakoError("INVALID_ARGUMENT", `Cannot decode ${what}: it is not JSON`, { cause });
  }
  throw new HakoError("INVALID_ARGUMENT", `Cannot decode ${what}: it is no JSON object`);
}
