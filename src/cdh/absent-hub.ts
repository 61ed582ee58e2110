import { HakoError } from "#base/error.ts";
import type { DataHub } from "./hub.ts";

/** The hub of a guest that has none: says so to everybody who asks. */
export class AbsentHub implements DataHub {
  readonly place = "nowhere";
  readonly #reason: string;

  /** `reason` ends a sentence: `there is no socket "…"`. */
  constructor(reason: string) {
    this.#reason = reason;
  }

  isAvailable(): boolean {
    return false;
  }

  unsealSecret = (): Promise<never> => this.#refuse("unseal a secret");
  getResource = (): Promise<never> => this.#refuse("get a resource");
  secureMount = (): Promise<never> => this.#refuse("mount a protected volume");
  pullImage = (): Promise<never> => this.#refuse("pull an image in the guest");
  wrapKey = (): Promise<never> => this.#refuse("wrap a key");
  unwrapKey = (): Promise<never> => this.#refuse("unwrap a key");

  async [Symbol.asyncDispose](): Promise<void> {}

  async #refuse(action: string): Promise<never> {
    throw new HakoError(
      "UNAVAILABLE",
      `Cannot ${action}: the confidential data hub is missing, ${this.#reason}`,
    );
  }
}
