import type { ImageConfig } from "#oci/image-spec.ts";
import type { ImageFile } from "./image-files.ts";

/** A layer as it is stored. */
export interface LayerBlob {
  /** For messages: `layer sha256:…`. */
  readonly what: string;
  /** Digest of the uncompressed tar stream. */
  readonly diffId: string;
  /** Digest of the stored bytes, where the image tells it. */
  readonly digest: string | undefined;
  /** Empty where the image does not tell it. */
  readonly mediaType: string;
  /** The stored bytes; their size has been checked. The caller disposes the file. */
  open(): ImageFile;
}

/** An image that was found: its documents are read and verified, its layers not yet. */
export interface ImageSource {
  /** Digest of the manifest, or of the configuration where there is no manifest. */
  readonly digest: string;
  readonly config: ImageConfig;
  /** Lowest first. */
  readonly layers: readonly LayerBlob[];
}
