import { HakoError } from "#base/error.ts";
import { O, openat2, openFd, RESOLVE } from "#sys/fd.ts";
import { mountStorage } from "./mount-point.ts";
import type { StorageHandler } from "./storage-handler.ts";

/** A file or directory of the guest at a second place. The source is reached through no symbolic link. */
export const bindHandler: StorageHandler = {
  drivers: ["bind"],
  lifetime: "container",
  async attach(storage, context) {
    if (!storage.source.startsWith("/")) {
      throw new HakoError(
        "INVALID_ARGUMENT",
        `Cannot bind ${JSON.stringify(storage.source)}: the path is not absolute`,
      );
    }
    using root = openFd("/", O.PATH | O.DIRECTORY);
    using source = openat2(root.number, storage.source, { flags: O.PATH, resolve: RESOLVE.NO_SYMLINKS });
    return await mountStorage(storage, context, { bind: source, writesNothing: true });
  },
};
