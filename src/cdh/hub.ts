/**
 * What the confidential data hub does: it opens what only this guest may see. Kata's agent talks to the hub of the
 * confidential-containers project over a socket; ours can also be in the agent's own process. Both are a `DataHub`, and
 * whoever needs one takes `dataHub()` (process-hub.ts).
 *
 * Every call may wait, is bounded by the hub's own time limit and ends with the signal. Throws UNAVAILABLE without a
 * hub or while it does not answer, UNIMPLEMENTED for what it does not do, PERMISSION_DENIED when a signature or a tag
 * is wrong, NOT_FOUND for what it does not have, INVALID_ARGUMENT for what it cannot read.
 */
export interface DataHub extends AsyncDisposable {
  /** For messages: "at unix:///…", "in this process". */
  readonly place: string;
  /** Whether there is a point in asking; never throws, and waits for nothing. */
  isAvailable(): boolean;
  /** The secret inside "sealed.…" text. */
  unsealSecret(secret: Uint8Array, signal?: AbortSignal): Promise<Uint8Array>;
  /** The bytes behind `kbs:///repository/type/tag`. */
  getResource(uri: string, signal?: AbortSignal): Promise<Uint8Array>;
  /** Makes a protected volume usable at its mount point. */
  secureMount(request: SecureMount, signal?: AbortSignal): Promise<void>;
  /** Pulls an image in the guest and unpacks it as a bundle. */
  pullImage(request: ImagePull, signal?: AbortSignal): Promise<PulledImage>;
  /** Encrypts a key of image layers so that `unwrapKey` gives it back: the annotation packet, JSON. */
  wrapKey(request: KeyWrap, signal?: AbortSignal): Promise<Uint8Array>;
  /** The key of image layers inside an annotation packet. */
  unwrapKey(packet: Uint8Array, signal?: AbortSignal): Promise<Uint8Array>;
}

export interface SecureMount {
  /** "block-device" and others. */
  readonly volumeType: string;
  readonly options: Readonly<Record<string, string>>;
  readonly flags: readonly string[];
  readonly mountPoint: string;
}

export interface ImagePull {
  readonly imageUrl: string;
  /** An absolute path; the image becomes its `rootfs` and `config.json`. */
  readonly bundlePath: string;
}

export interface PulledImage {
  /** Empty when the hub does not say. */
  readonly manifestDigest: string;
}

export interface KeyWrap {
  /** The key to be wrapped. */
  readonly key: Uint8Array;
  /** The resource that holds the key that wraps, `kbs:///…`. */
  readonly keyId: string;
}

/** What sealed secrets begin with. */
export const SEALED_PREFIX = "sealed.";
