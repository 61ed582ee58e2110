/** What the lab keeps between runs: folders named after what they were made from, made whole or not at all. */
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
} from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";

export const labCache = join(process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache"), "hako", "lab");

/** Folders of one kind that stay; older ones go when a new one is made. */
const KEPT = 3;

/**
 * The folder `<kind>-<key>` of the cache. When it is not there yet, `make` fills an empty folder beside it, which
 * then takes its place: a run that is cut off leaves nothing that looks finished, and two runs do not disturb each other.
 */
export async function cachedFolder(
  kind: string,
  key: string,
  make: (folder: string) => Promise<void>,
): Promise<string> {
  const folder = join(labCache, `${kind}-${key}`);
  if (existsSync(folder)) {
    utimesSync(folder, new Date(), new Date());
    return folder;
  }
  const fresh = workFolder();
  try {
    await make(fresh);
    if (!existsSync(folder)) renameSync(fresh, folder);
  } finally {
    rmSync(fresh, { recursive: true, force: true });
  }
  removeOld(kind);
  return folder;
}

/**
 * An empty folder for the caller to remove; it has this process's id in its name, and those of processes that are
 * gone (a Ctrl-C, a crash) are removed first.
 */
export function workFolder(): string {
  mkdirSync(labCache, { recursive: true });
  for (const name of readdirSync(labCache)) {
    const owner = /^work-(\d+)-/.exec(name)?.[1];
    if (owner !== undefined && !existsSync(`/proc/${owner}`)) {
      rmSync(join(labCache, name), { recursive: true, force: true });
    }
  }
  return mkdtempSync(join(labCache, `work-${process.pid}-`));
}

function removeOld(kind: string): void {
  const finished = readdirSync(labCache)
    .filter((name) => name.startsWith(`${kind}-`))
    .map((name) => join(labCache, name));
  const newestFirst = finished.sort((a, b) => statSync(b).mtimeMs - statSync(a).mtimeMs);
  for (const old of newestFirst.slice(KEPT)) rmSync(old, { recursive: true, force: true });
}
