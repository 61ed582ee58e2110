import { withDeadline } from "#base/deadline.ts";
import { HakoError } from "#base/error.ts";
import type { DataHub, ImagePull, KeyWrap, PulledImage, SecureMount } from "#cdh/hub.ts";
import {
  decodeUnwrapOutput,
  decodeWrapOutput,
  encodeUnwrapInput,
  encodeWrapInput,
} from "#cdh/key-provider-protocol.ts";
import {
  GetResourceServiceDefinition,
  ImagePullServiceDefinition,
  SealedSecretServiceDefinition,
  SecureMountServiceDefinition,
} from "#proto/confidential_data_hub.ts";
import { KeyProviderServiceDefinition } from "#proto/keyprovider.ts";
import type { CallOptions } from "#ttrpc/call-options.ts";
import { createClient, type TtrpcClient } from "#ttrpc/client.ts";
import { SharedConnection } from "./connection.ts";

export interface ExternalHubOptions {
  readonly socket: string;
  readonly timeoutMs: number;
  readonly imagePullTimeoutMs: number;
}

/** What a call does to the hub: reading may be done again when the connection was lost under it. */
type Effect = "reads" | "changes";

/** The hub of the confidential-containers project, or any that speaks as it does, on a unix socket. */
export class ExternalHub implements DataHub {
  readonly place: string;
  readonly #options: ExternalHubOptions;
  readonly #connection: SharedConnection;
  #closed = false;

  constructor(options: ExternalHubOptions) {
    this.#options = options;
    this.place = `at unix://${options.socket}`;
    this.#connection = new SharedConnection(options.socket);
  }

  isAvailable(): boolean {
    return !this.#closed;
  }

  async unsealSecret(secret: Uint8Array, signal?: AbortSignal): Promise<Uint8Array> {
    const answer = await this.#call("unseal a secret", "reads", signal, (client, options) =>
      createClient(SealedSecretServiceDefinition, client).unsealSecret({ secret }, options),
    );
    return answer.plaintext;
  }

  async getResource(uri: string, signal?: AbortSignal): Promise<Uint8Array> {
    const answer = await this.#call(`get resource "${uri}"`, "reads", signal, (client, options) =>
      createClient(GetResourceServiceDefinition, client).getResource({ ResourcePath: uri }, options),
    );
    return answer.Resource;
  }

  async secureMount(request: SecureMount, signal?: AbortSignal): Promise<void> {
    const what = `mount a protected volume on "${request.mountPoint}"`;
    await this.#call(what, "changes", signal, (client, options) =>
      createClient(SecureMountServiceDefinition, client).secureMount(
        { ...request, flags: [...request.flags], options: { ...request.options } },
        options,
      ),
    );
  }

  async pullImage(request: ImagePull, signal?: AbortSignal): Promise<PulledImage> {
    const what = `pull image "${request.imageUrl}"`;
    const { manifestDigest } = await this.#call(what, "changes", signal, (client, options) =>
      createClient(ImagePullServiceDefinition, client).pullImage(request, options),
    );
    return { manifestDigest };
  }

  async wrapKey(request: KeyWrap, signal?: AbortSignal): Promise<Uint8Array> {
    const input = encodeWrapInput(request);
    const answer = await this.#call("wrap a key", "reads", signal, (client, options) =>
      createClient(KeyProviderServiceDefinition, client).wrapKey(
        { KeyProviderKeyWrapProtocolInput: input },
        options,
      ),
    );
    return decodeWrapOutput(answer.KeyProviderKeyWrapProtocolOutput);
  }

  async unwrapKey(packet: Uint8Array, signal?: AbortSignal): Promise<Uint8Array> {
    const input = encodeUnwrapInput(packet);
    const answer = await this.#call("unwrap a key", "reads", signal, (client, options) =>
      createClient(KeyProviderServiceDefinition, client).unWrapKey(
        { KeyProviderKeyWrapProtocolInput: input },
        options,
      ),
    );
    return decodeUnwrapOutput(answer.KeyProviderKeyWrapProtocolOutput);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    this.#connection[Symbol.dispose]();
  }

  async #call<T>(
    what: string,
    effect: Effect,
    outer: AbortSignal | undefined,
    make: (client: TtrpcClient, options: CallOptions) => Promise<T>,
  ): Promise<T> {
    const { timeoutMs, imagePullTimeoutMs } = this.#options;
    const limit = what.startsWith("pull image") ? imagePullTimeoutMs : timeoutMs;
    try {
      return await withDeadline(limit, what, (signal) => this.#attempt(effect, signal, limit, make), outer);
    } catch (caught) {
      const error = HakoError.from(caught);
      const { failure } = this.#connection;
      const late = error.code === "DEADLINE_EXCEEDED" && failure !== undefined;
      const cause = late ? new HakoError(error.code, error.message, { cause: failure }) : error;
      const message = `Cannot ${what} by the confidential data hub ${this.place}`;
      throw new HakoError(error.code, message, { cause });
    }
  }

  async #attempt<T>(
    effect: Effect,
    signal: AbortSignal,
    timeoutMs: number,
    make: (client: TtrpcClient, options: CallOptions) => Promise<T>,
  ): Promise<T> {
    for (;;) {
      if (this.#closed) throw new HakoError("UNAVAILABLE", "The hub is closed");
      const client = await this.#connection.client(signal);
      try {
        return await make(client, { signal, timeoutMs });
      } catch (error) {
        const lost = error instanceof HakoError && error.code === "UNAVAILABLE";
        if (!lost || effect === "changes" || signal.aborted) throw error;
      }
    }
  }
}
