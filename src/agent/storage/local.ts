import { splitBelow } from "#agent/safe-directory.ts";
import { HakoError } from "#base/error.ts";
import type { Storage } from "#proto/agent.ts";
import { setDirectoryAccess } from "./directory-access.ts";
import type { StorageHandler } from "./storage-handler.ts";

const SET_GID = 0o2000;

function option(storage: Storage, key: string): string | undefined {
  return storage.options.find((entry) => entry.startsWith(`${key}=`))?.slice(key.length + 1);
}

/** Permissions in octal; a volume with a group also hands the group down to what is made in it. */
function modeOf(storage: Storage, grouped: boolean): number | undefined {
  const text = option(storage, "mode");
  if (text === undefined) return undefined;
  if (!/^0?[0-7]{1,4}$/.test(text)) {
    throw new HakoError("INVALID_ARGUMENT", `Cannot use ${JSON.stringify(text)} as permissions`);
  }
  return Number.parseInt(text, 8) | (grouped ? SET_GID : 0);
}

async function removeDirectory(path: string): Promise<void> {
  const { rm } = await import("node:fs/promises");
  await rm(path, { recursive: true, force: true });
}

/** A plain directory of the guest that containers of the pod share: emptyDir. */
export const localHandler: StorageHandler = {
  drivers: ["local"],
  lifetime: "sandbox",
  async attach(storage, { runDirectory }) {
    const path = storage.mountPoint;
    splitBelow(runDirectory, path);
    const group = option(storage, "fsgid");
    const mode = modeOf(storage, group !== undefined);
    setDirectoryAccess(runDirectory, path, {
      ...(group === undefined ? {} : { group }),
      ...(mode === undefined ? {} : { mode }),
    });
    return { detach: () => removeDirectory(path) };
  },
};
