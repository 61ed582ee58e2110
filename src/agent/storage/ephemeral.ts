import { openEntry } from "#agent/safe-directory.ts";
import { HakoError } from "#base/error.ts";
import { readText, writeText } from "#linux/file.ts";
import { parseMountOptions } from "#linux/mount.ts";
import type { Storage } from "#proto/agent.ts";
import { setDirectoryAccess } from "./directory-access.ts";
import { mountStorage } from "./mount-point.ts";
import type { StorageHandler } from "./storage-handler.ts";

const GROUP_OPTION = "fsgid=";
const SET_GID = 0o2000;
/** tmpfs' own default. */
const TMPFS_MODE = 0o1777;
const HUGEPAGES = "/sys/kernel/mm/hugepages";

function numberOption(storage: Storage, key: string): bigint {
  const words = storage.options.flatMap((option) => option.split(","));
  const text = words.find((word) => word.startsWith(`${key}=`))?.slice(key.length + 1) ?? "";
  if (/^[1-9]\d{0,17}$/.test(text)) return BigInt(text);
  throw new HakoError(
    "INVALID_ARGUMENT",
    `Cannot mount huge pages: option "${key}" must be a number of bytes`,
  );
}

/** hugetlbfs takes its pages from a pool that must be filled first; an unfilled rest is an error. */
function reserveHugePages(storage: Storage): void {
  const pageSize = numberOption(storage, "pagesize");
  const wanted = numberOption(storage, "size") / pageSize;
  const file = `${HUGEPAGES}/hugepages-${pageSize / 1024n}kB/nr_hugepages`;
  const action = `Cannot reserve ${wanted} huge pages of ${pageSize} bytes`;
  try {
    writeText(file, String(wanted));
    const got = BigInt(readText(file).trim());
    if (got >= wanted) return;
    throw new HakoError("RESOURCE_EXHAUSTED", `${action}: the guest had memory for ${got}`);
  } catch (cause) {
    throw cause instanceof HakoError ? cause : new HakoError("FAILED_PRECONDITION", action, { cause });
  }
}

/** Memory as a volume: tmpfs (shared memory, emptyDir of medium Memory) or hugetlbfs; "fsgid=GID" names its group. */
export const ephemeralHandler: StorageHandler = {
  drivers: ["ephemeral"],
  lifetime: "sandbox",
  async attach(storage, context) {
    const fstype = storage.fstype || "tmpfs";
    if (fstype !== "tmpfs" && fstype !== "hugetlbfs") {
      throw new HakoError("INVALID_ARGUMENT", `Cannot mount memory as ${JSON.stringify(fstype)}`);
    }
    if (fstype === "hugetlbfs") reserveHugePages(storage);
    const group = storage.options.find((option) => option.startsWith(GROUP_OPTION));
    const options = storage.options.filter((option) => option !== group);
    const attached = await mountStorage(storage, context, { fstype, options, writesNothing: true });
    try {
      if (group !== undefined) {
        const access = { group: group.slice(GROUP_OPTION.length), mode: TMPFS_MODE | SET_GID };
        setDirectoryAccess(context.runDirectory, storage.mountPoint, access);
      }
    } catch (error) {
      await attached.detach();
      throw error;
    }
    return attached;
  },
  async update(storage, { runDirectory }) {
    if ((storage.fstype || "tmpfs") !== "tmpfs") {
      throw new HakoError(
        "UNIMPLEMENTED",
        `Cannot update memory mounted as ${JSON.stringify(storage.fstype)}`,
      );
    }
    const options = storage.options.filter((option) => !option.startsWith(GROUP_OPTION));
    const { flags, data } = parseMountOptions(options);
    using mounted = openEntry(runDirectory, storage.mountPoint);
    const { remountTmpfs } = await import("#agent/volume.ts");
    await remountTmpfs(mounted, data === "" ? [] : [data], flags);
  },
};
