import { join } from "node:path";
import { withDeadline } from "#base/deadline.ts";
import { HakoError } from "#base/error.ts";
import { type DataHub, type ImagePull, type KeyWrap, SEALED_PREFIX, type SecureMount } from "#cdh/hub.ts";
import { readText } from "#linux/file.ts";
import { E, isErrno } from "#sys/errno.ts";
import type { HubConfiguration } from "./configuration.ts";
import type { KeyBroker } from "./key-broker.ts";
import { unwrapLayerKey, wrapLayerKey } from "./key-wrap.ts";
import { isResourceUri, parseResourceUri } from "./resource-uri.ts";
import { type SecretSource, unsealSecret } from "./sealed-secret.ts";
import type { ProtectedVolume } from "./secure-mount.ts";

const KEY_FILE_MAX = 64 * 1024;
/** A name of a provisioned key, not a path. */
const KEY_NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/;

/** The hub in this very process. */
export class OwnHub implements DataHub {
  readonly place = "in this process";
  readonly #configuration: HubConfiguration;
  readonly #broker: KeyBroker;
  readonly #timeoutMs: number;
  readonly #stop = new AbortController();
  readonly #volumes: ProtectedVolume[] = [];

  constructor(configuration: HubConfiguration, broker: KeyBroker, timeoutMs: number) {
    this.#configuration = configuration;
    this.#broker = broker;
    this.#timeoutMs = timeoutMs;
  }

  isAvailable(): boolean {
    return !this.#stop.signal.aborted;
  }

  async unsealSecret(secret: Uint8Array, signal?: AbortSignal): Promise<Uint8Array> {
    return await this.#limited("unseal a secret", signal, (stop) => unsealSecret(secret, this.#source(stop)));
  }

  async getResource(uri: string, signal?: AbortSignal): Promise<Uint8Array> {
    return await this.#limited(`get resource "${uri}"`, signal, (stop) => this.#resource(uri, stop));
  }

  async secureMount(request: SecureMount, signal?: AbortSignal): Promise<void> {
    const what = `mount a protected volume on "${request.mountPoint}"`;
    await this.#limited(what, signal, async (stop) => {
      const { mountProtected } = await import("./secure-mount.ts");
      const findKey = (text: string) =>
        text.startsWith(SEALED_PREFIX)
          ? unsealSecret(Buffer.from(text), this.#source(stop))
          : this.#resource(text, stop);
      this.#volumes.push(await mountProtected(request, findKey));
    });
  }

  async pullImage({ imageUrl }: ImagePull, signal?: AbortSignal): Promise<never> {
    return await this.#limited(`pull image "${imageUrl}"`, signal, async () => {
      throw new HakoError("UNIMPLEMENTED", "The client of image registries is missing in this hub");
    });
  }

  async wrapKey({ key, keyId }: KeyWrap, signal?: AbortSignal): Promise<Uint8Array> {
    return await this.#limited("wrap a key", signal, (stop) =>
      wrapLayerKey(key, keyId, (uri) => this.#resource(uri, stop)),
    );
  }

  async unwrapKey(packet: Uint8Array, signal?: AbortSignal): Promise<Uint8Array> {
    return await this.#limited("unwrap a key", signal, (stop) =>
      unwrapLayerKey(packet, (uri) => this.#resource(uri, stop)),
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new HakoError("UNAVAILABLE", "The hub is closed"));
    for (const volume of this.#volumes.splice(0).reverse()) await volume.close();
  }

  async #limited<T>(
    what: string,
    outer: AbortSignal | undefined,
    work: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const stop = this.#stop.signal;
    const signal = outer ? AbortSignal.any([outer, stop]) : stop;
    try {
      signal.throwIfAborted();
      return await withDeadline(this.#timeoutMs, what, work, signal);
    } catch (caught) {
      const error = HakoError.from(caught);
      throw new HakoError(error.code, `Cannot ${what} by the confidential data hub ${this.place}`, {
        cause: error,
      });
    }
  }

  async #resource(uri: string, signal: AbortSignal): Promise<Uint8Array> {
    return await this.#broker.getResource(parseResourceUri(uri), signal);
  }

  #source(signal: AbortSignal): SecretSource {
    return {
      skipVerification: this.#configuration.skipVerification,
      resource: (uri) => this.#resource(uri, signal),
      signingKey: async (keyId) =>
        isResourceUri(keyId) ? await this.#resource(keyId, signal) : this.#provisionedKey(keyId),
    };
  }

  #provisionedKey(keyId: string): Uint8Array {
    if (!KEY_NAME.test(keyId)) {
      throw new HakoError(
        "INVALID_ARGUMENT",
        `Cannot find signing key ${JSON.stringify(keyId.slice(0, 200))}: it is neither a resource nor a name`,
      );
    }
    const path = join(this.#configuration.baseDirectory, "sealed-secret", keyId);
    try {
      return Buffer.from(readText(path, KEY_FILE_MAX));
    } catch (cause) {
      if (!isErrno(cause, E.ENOENT)) throw cause;
      throw new HakoError("NOT_FOUND", `There is no signing key "${keyId}": it is looked for at "${path}"`, {
        cause,
      });
    }
  }
}
