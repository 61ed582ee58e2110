import { statSync } from "node:fs";
import { HakoError } from "#base/error.ts";
import { SHARED_DIR } from "#resource/storage.ts";
import { copyOfFile, copyOfText, type GuestCopy } from "./guest-copy.ts";
import { findHostFile } from "./host-file.ts";
import { bindFrom, isBind } from "./mount-option.ts";
import type { Volume, VolumeHandler } from "./volume.ts";

/** The copy lies in the guest's memory. */
const MAX_BYTES = 64 * 1024 * 1024;

/** A file, which is copied into the guest. What the container writes to it stays there. */
export const fileVolume: VolumeHandler = {
  name: "file",
  matches: (mount) => isBind(mount) && findHostFile(mount.source ?? "")?.isFile() === true,
  async prepare(mount, { containerId, index }) {
    const { source = "" } = mount;
    const { size } = statSync(source);
    if (size > MAX_BYTES) {
      throw new HakoError(
        "RESOURCE_EXHAUSTED",
        `Cannot use "${source}" as a volume: it has ${size} bytes, and a file of at most ${MAX_BYTES} can be copied into the guest`,
      );
    }
    const guestPath = `${SHARED_DIR}/${containerId}-volume-${index}`;
    return copied(copyOfFile(source, guestPath), guestPath, mount);
  },
};

/** What every container finds in /etc about itself, unless it is given another file there. */
export function prepareIdentityFiles(containerId: string, hostname: string, resolvConf?: string): Volume[] {
  const hosts = `127.0.0.1 localhost\n::1 localhost\n127.0.1.1 ${hostname}\n`;
  const file = (name: string, text: string) => {
    const guestPath = `${SHARED_DIR}/${containerId}-${name}`;
    return copied(copyOfText(text, guestPath), guestPath, { destination: `/etc/${name}` });
  };
  const files = [file("hosts", hosts), file("hostname", `${hostname}\n`)];
  return resolvConf === undefined ? files : [...files, file("resolv.conf", resolvConf)];
}

function copied(copy: GuestCopy, guestPath: string, mount: Parameters<typeof bindFrom>[1]): Volume {
  return { copy, mount: bindFrom(guestPath, mount), [Symbol.dispose]() {} };
}
