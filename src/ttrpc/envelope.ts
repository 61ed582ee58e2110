import { BinaryReader, BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { HakoError } from "#base/error.ts";
import type { Status } from "./status.ts";

/**
 * Encoding of ttrpc.Request and ttrpc.Response (proto/ttrpc.proto) by hand, since generated code has no limits:
 * metadata pairs of two bytes each would grow into objects of hundreds of bytes.
 */

/** Key, and its values in the order sent. Keys are in lower case. */
export type Metadata = ReadonlyMap<string, readonly string[]>;

export interface RequestEnvelope {
  readonly service: string;
  readonly method: string;
  readonly payload: Uint8Array;
  /** Nanoseconds; 0 for no limit. Negative when the caller's deadline had passed already. */
  readonly timeoutNano: bigint;
  readonly metadata: Metadata;
}

export interface ResponseEnvelope {
  readonly status: Status | undefined;
  readonly payload: Uint8Array;
}

/** The most key and value pairs that a request may carry. */
export const MAX_METADATA_PAIRS = 256;

const EMPTY = new Uint8Array(0);

const NO_METADATA: Metadata = new Map();

/** Field numbers with their wire types, as they stand in front of a value. */
const REQUEST = { service: 10, method: 18, payload: 26, timeoutNano: 32, metadata: 42 } as const;
const RESPONSE = { status: 10, payload: 18 } as const;
const STATUS = { code: 8, message: 18 } as const;
const PAIR = { key: 10, value: 18 } as const;

/** The start of every request for one method, to be made once. */
export function encodeRoute(service: string, method: string): Uint8Array {
  return new BinaryWriter()
    .uint32(REQUEST.service)
    .string(service)
    .uint32(REQUEST.method)
    .string(method)
    .finish();
}

/** The bytes of a request; `route` comes from {@link encodeRoute}. Throws INVALID_ARGUMENT on too much metadata. */
export function encodeRequest(
  route: Uint8Array,
  payload: Uint8Array,
  timeoutNano: bigint,
  metadata: Metadata,
): Uint8Array {
  const writer = new BinaryWriter().raw(route);
  if (payload.length > 0) writer.uint32(REQUEST.payload).bytes(payload);
  if (timeoutNano !== 0n) writer.uint32(REQUEST.timeoutNano).int64(timeoutNano);
  let pairs = 0;
  for (const [key, values] of metadata) {
    for (const value of values) {
      if (++pairs > MAX_METADATA_PAIRS) throw tooManyPairs();
      writer.uint32(REQUEST.metadata).fork();
      writer.uint32(PAIR.key).string(key).uint32(PAIR.value).string(value).join();
    }
  }
  return writer.finish();
}

/** Reads a request; unknown fields are skipped. Throws INVALID_ARGUMENT on anything malformed. */
export function decodeRequest(bytes: Uint8Array): RequestEnvelope {
  return decoding("request", () => {
    const reader = new BinaryReader(bytes);
    let service = "";
    let method = "";
    let payload: Uint8Array = EMPTY;
    let timeoutNano = 0n;
    const pairs: [string, string][] = [];
    while (reader.pos < reader.len) {
      const tag = reader.uint32();
      if (tag === REQUEST.service) service = reader.string();
      else if (tag === REQUEST.method) method = reader.string();
      else if (tag === REQUEST.payload) payload = reader.bytes();
      else if (tag === REQUEST.timeoutNano) timeoutNano = BigInt(reader.int64());
      else if (tag === REQUEST.metadata) {
        if (pairs.length === MAX_METADATA_PAIRS) throw tooManyPairs();
        pairs.push(decodePair(reader.bytes()));
      } else skipField(reader, tag);
    }
    return { service, method, payload, timeoutNano, metadata: collectMetadata(pairs) };
  });
}

/** The bytes of a response. Success has no status. */
export function encodeResponse(status: Status | undefined, payload: Uint8Array): Uint8Array {
  const writer = new BinaryWriter();
  if (status !== undefined) {
    writer.uint32(RESPONSE.status).fork();
    if (status.code !== 0) writer.uint32(STATUS.code).int32(status.code);
    if (status.message !== "") writer.uint32(STATUS.message).string(status.message);
    writer.join();
  }
  if (payload.length > 0) writer.uint32(RESPONSE.payload).bytes(payload);
  return writer.finish();
}

/** Reads a response; details of the status and unknown fields are skipped. Throws INVALID_ARGUMENT. */
export function decodeResponse(bytes: Uint8Array): ResponseEnvelope {
  return decoding("response", () => {
    const reader = new BinaryReader(bytes);
    let status: Status | undefined;
    let payload: Uint8Array = EMPTY;
    while (reader.pos < reader.len) {
      const tag = reader.uint32();
      if (tag === RESPONSE.status) status = decodeStatus(reader.bytes());
      else if (tag === RESPONSE.payload) payload = reader.bytes();
      else skipField(reader, tag);
    }
    return { status, payload };
  });
}

function decodeStatus(bytes: Uint8Array): Status {
  const reader = new BinaryReader(bytes);
  let code = 0;
  let message = "";
  while (reader.pos < reader.len) {
    const tag = reader.uint32();
    if (tag === STATUS.code) code = reader.int32();
    else if (tag === STATUS.message) message = reader.string();
    else skipField(reader, tag);
  }
  return { code, message };
}

function decodePair(bytes: Uint8Array): [string, string] {
  const reader = new BinaryReader(bytes);
  let key = "";
  let value = "";
  while (reader.pos < reader.len) {
    const tag = reader.uint32();
    if (tag === PAIR.key) key = reader.string();
    else if (tag === PAIR.value) value = reader.string();
    else skipField(reader, tag);
  }
  return [key, value];
}

function collectMetadata(pairs: readonly [string, string][]): Metadata {
  if (pairs.length === 0) return NO_METADATA;
  const metadata = new Map<string, string[]>();
  for (const [key, value] of pairs) {
    const name = key.toLowerCase();
    const values = metadata.get(name);
    if (values === undefined) metadata.set(name, [value]);
    else values.push(value);
  }
  return metadata;
}

/** Skips a field of a later version of the protocol. proto3 has no groups: they are refused. */
function skipField(reader: BinaryReader, tag: number): void {
  const wireType = (tag & 7) as WireType;
  if (tag >>> 3 === 0 || wireType === WireType.StartGroup || wireType === WireType.EndGroup) {
    throw new HakoError("INVALID_ARGUMENT", `Unexpected field tag ${tag}`);
  }
  reader.skip(wireType, tag >>> 3);
}

function decoding<T>(what: string, decode: () => T): T {
  try {
    return decode();
  } catch (error) {
    throw new HakoError("INVALID_ARGUMENT", `Cannot decode ttrpc ${what}`, { cause: error });
  }
}

function tooManyPairs(): HakoError {
  return new HakoError("INVALID_ARGUMENT", `A request carries at most ${MAX_METADATA_PAIRS} metadata pairs`);
}
