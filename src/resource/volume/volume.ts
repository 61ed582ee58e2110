/** A file or directory of the host that a container sees. Both paths are absolute. */
export interface VolumeSpec {
  readonly hostPath: string;
  readonly guestPath: string;
  readonly readOnly: boolean;
}
