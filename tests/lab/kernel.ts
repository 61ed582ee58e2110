/** The kernel of L1: Debian's cloud kernel with all of its modules, taken from its package without installing it. */
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { cachedFolder, labCache } from "./cache.ts";
import { runTool } from "./tool.ts";

const META_PACKAGE = "linux-image-cloud-amd64";

export interface LabKernel {
  /** What `uname -r` says, and the name of the folder below lib/modules. */
  readonly release: string;
  /** The bzImage. */
  readonly image: string;
  /** A folder that holds lib/modules/<release> with the files of depmod(8). */
  readonly modulesRoot: string;
  /** Tells this kernel from every other one. */
  readonly key: string;
}

export async function labKernel(): Promise<LabKernel> {
  const found = await findPackage().catch((error: unknown) => {
    const newest = newestCached();
    if (newest === undefined) throw error;
    return newest;
  });
  const key = typeof found === "string" ? found : `${found.name}-${found.version}`;
  const folder = await cachedFolder("kernel", key, async (into) => {
    if (typeof found === "string") throw new Error(`The cached kernel "${found}" has vanished`);
    await unpack(found.name, into);
  });
  const release = readdirSync(join(folder, "lib/modules"))[0];
  if (release === undefined) throw new Error(`"${folder}" holds no kernel modules`);
  return { release, image: join(folder, "vmlinuz"), modulesRoot: folder, key };
}

/** The package that the meta package stands for now, as apt's lists have it. */
async function findPackage(): Promise<{ name: string; version: string }> {
  const depends = await runTool(["apt-cache", "depends", META_PACKAGE]);
  const name = /Depends: (linux-image-\S+)/.exec(depends)?.[1];
  if (name === undefined) throw new Error(`apt knows no package "${META_PACKAGE}": run apt-get update`);
  const policy = await runTool(["apt-cache", "policy", name]);
  const version = /Candidate: (\S+)/.exec(policy)?.[1];
  if (version === undefined) throw new Error(`apt has no candidate for "${name}": run apt-get update`);
  return { name, version: version.replaceAll(/[^\w.+~-]/g, "_") };
}

/** Without apt's lists a kernel of an earlier run does as well. */
function newestCached(): string | undefined {
  if (!existsSync(labCache)) return undefined;
  const names = readdirSync(labCache).filter((name) => name.startsWith("kernel-"));
  return names.sort().at(-1)?.slice("kernel-".length);
}

async function unpack(name: string, into: string): Promise<void> {
  const work = join(into, "package");
  mkdirSync(work);
  const download = ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", name];
  try {
    await runTool(download, work);
  } catch (error) {
    // The lists may be older than the archive, which then lacks the file they name.
    if (process.getuid?.() !== 0) throw error;
    await runTool(["apt-get", "-q", "update"]);
    await runTool(download, work);
  }
  const archive = readdirSync(work).find((file) => file.endsWith(".deb"));
  if (archive === undefined) throw new Error(`apt-get download left no package of "${name}"`);
  await runTool(["dpkg", "-x", archive, "."], work);
  const image = readdirSync(join(work, "boot")).find((file) => file.startsWith("vmlinuz-"));
  if (image === undefined) throw new Error(`The package "${name}" holds no kernel`);
  renameSync(join(work, "boot", image), join(into, "vmlinuz"));
  renameSync(join(work, "lib"), join(into, "lib"));
  rmSync(work, { recursive: true });
  await runTool(["depmod", "-b", into, image.slice("vmlinuz-".length)]);
}
