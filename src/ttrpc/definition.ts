import type { BinaryReader, BinaryWriter } from "@bufbuild/protobuf/wire";
import { HakoError } from "#base/error.ts";
import type { DeepPartial } from "#proto/agent.ts";

/** What ts-proto generates for a message. */
export interface MessageCodec<T> {
  encode(message: T, writer?: BinaryWriter): BinaryWriter;
  decode(input: BinaryReader | Uint8Array, length?: number): T;
  fromPartial(object: never): T;
}

/** A method as `outputServices=generic-definitions` describes it. */
export interface MethodDefinition<Request = unknown, Response = unknown> {
  readonly name: string;
  readonly requestType: MessageCodec<Request>;
  readonly requestStream: boolean;
  readonly responseType: MessageCodec<Response>;
  readonly responseStream: boolean;
}

/** A service: its name with the package, and its methods by their names in lower camel case. */
export interface ServiceDefinition {
  readonly fullName: string;
  readonly methods: Readonly<Record<string, MethodDefinition>>;
}

type MessageOf<Codec> = Codec extends { decode(...args: never[]): infer T } ? T : never;

/** The request message of a method, as its handler gets it. */
export type RequestOf<Method extends MethodDefinition> = MessageOf<Method["requestType"]>;

/** The response message of a method, as its caller gets it. */
export type ResponseOf<Method extends MethodDefinition> = MessageOf<Method["responseType"]>;

/** A message to be sent: fields left out have their protobuf default. */
export type Sendable<T> = DeepPartial<T>;

/** A method as messages for people name it: "package.Service/Method", with the quotes. */
export function methodName(service: ServiceDefinition, method: MethodDefinition): string {
  return `"${service.fullName}/${method.name}"`;
}

/** The bytes of a message whose missing fields are filled in. */
export function encodeMessage<T>(codec: MessageCodec<T>, message: Sendable<T>): Uint8Array {
  return codec.encode(codec.fromPartial(message as never)).finish();
}

/** Reads a message. Throws `code` when the bytes are not one. */
export function decodeMessage<T>(
  codec: MessageCodec<T>,
  bytes: Uint8Array,
  what: string,
  code: "INVALID_ARGUMENT" | "INTERNAL",
): T {
  try {
    return codec.decode(bytes);
  } catch (error) {
    throw new HakoError(code, `Cannot decode ${what}`, { cause: error });
  }
}
