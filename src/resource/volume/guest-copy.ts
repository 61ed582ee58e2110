/** Writes below the directory of the guest that the agent lets files be copied to. Each call replaces what is there. */
export interface GuestWriter {
  /** A file of the host with its mode and owner. ABORTED when it became shorter meanwhile, NOT_FOUND when it is gone. */
  writeFile(hostPath: string, guestPath: string, signal?: AbortSignal): Promise<void>;
  /** A file that everybody may read. */
  writeText(text: string, guestPath: string, signal?: AbortSignal): Promise<void>;
  writeDirectory(guestPath: string, attributes: GuestAttributes, signal?: AbortSignal): Promise<void>;
  writeLink(
    target: string,
    guestPath: string,
    attributes: GuestAttributes,
    signal?: AbortSignal,
  ): Promise<void>;
}

export interface GuestAttributes {
  /** Permission bits. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
}

/** Content that is written to the guest before the container is created. */
export interface GuestCopy {
  copyTo(writer: GuestWriter, signal?: AbortSignal): Promise<void>;
  /** Keeps the guest's copy up to date until it is disposed of; absent for content that does not change. */
  follow?(writer: GuestWriter): Disposable;
}

/** One file of the host. */
export function copyOfFile(hostPath: string, guestPath: string): GuestCopy {
  return { copyTo: (writer, signal) => writer.writeFile(hostPath, guestPath, signal) };
}

/** A file that exists nowhere on the host. */
export function copyOfText(text: string, guestPath: string): GuestCopy {
  return { copyTo: (writer, signal) => writer.writeText(text, guestPath, signal) };
}
