/**
 * Pulls images inside the guest, so that the host need not be trusted with them: the confidential data hub, or
 * whatever else does it. The agent asks for nothing but a root directory.
 */
export interface ImagePuller {
  /**
   * Makes the image's file system appear as `${bundle}/rootfs`; `bundle` exists, is empty and is the puller's until
   * {@link release}. Throws UNAVAILABLE when it cannot be reached, PERMISSION_DENIED when policy forbids the image.
   */
  pull(reference: string, bundle: string, signal?: AbortSignal): Promise<void>;
  /** Takes away what `pull` made. */
  release(bundle: string): Promise<void>;
}
