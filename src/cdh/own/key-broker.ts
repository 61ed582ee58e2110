import { HakoError } from "#base/error.ts";
import { findText } from "#linux/file.ts";
import type { ResourceUri } from "./resource-uri.ts";

/** Where secrets come from: a client of a key broker service. */
export interface KeyBroker {
  /** Throws NOT_FOUND for what it does not have. */
  getResource(uri: ResourceUri, signal?: AbortSignal): Promise<Uint8Array>;
}

const FILE_MAX = 16 * 1024 * 1024;

/** Files that the peer's "offline_fs_kbc" reads. */
export const OFFLINE_FILES: readonly string[] = [
  "/etc/aa-offline_fs_kbc-keys.json",
  "/etc/aa-offline_fs_kbc-resources.json",
];

/** Secrets in files of the guest: JSON, from repository/type/tag to base64. For tests and measured images. */
export class OfflineKeyBroker implements KeyBroker {
  readonly #resources = new Map<string, Uint8Array>();

  /** Files that are not there are passed over. Throws INVALID_ARGUMENT for one that cannot be read. */
  constructor(files: readonly string[]) {
    for (const file of files) this.#read(file);
  }

  async getResource({ plugin, path }: ResourceUri): Promise<Uint8Array> {
    const found = plugin === "resource" ? this.#resources.get(path) : undefined;
    if (found) return found;
    throw new HakoError("NOT_FOUND", `There is no resource "${path}" in the files of the offline key broker`);
  }

  #read(file: string): void {
    const text = findText(file, FILE_MAX);
    if (text === undefined) return;
    let entries: unknown;
    try {
      entries = JSON.parse(text);
    } catch (cause) {
      throw new HakoError("INVALID_ARGUMENT", `Cannot read resources from "${file}": it is no JSON`, {
        cause,
      });
    }
    for (const [path, value] of Object.entries(entries ?? {})) {
      const bytes = typeof value === "string" ? Buffer.from(value, "base64") : undefined;
      if (!bytes || bytes.toString("base64").replace(/=+$/, "") !== String(value).replace(/=+$/, "")) {
        throw new HakoError(
          "INVALID_ARGUMENT",
          `Cannot read resources from "${file}": "${path}" is no base64`,
        );
      }
      this.#resources.set(path, bytes);
    }
  }
}

/** Stands for a broker that is later work, or that nobody configured. */
export class MissingKeyBroker implements KeyBroker {
  readonly #name: string;

  constructor(name: string) {
    this.#name = name;
  }

  async getResource(): Promise<never> {
    throw new HakoError(
      "UNIMPLEMENTED",
      `Resources cannot be got by key broker client "${this.#name}": only "offline_fs_kbc" is there, attestation is missing`,
    );
  }
}
