import { HakoError } from "#base/error.ts";
import type { Mount } from "#proto/containerd/types.ts";
import type { BundleSpec } from "#runtime/container.ts";

type RootfsSource = BundleSpec["rootfs"];

/**
 * What a snapshotter's mounts mean: the layers of an overlay are packed as they are, never mounted on the host. Without
 * mounts, `bundleRoot` (root.path of the configuration) is there already.
 */
export function rootfsSource(mounts: readonly Mount[], bundleRoot: string): RootfsSource {
  const [mount, ...others] = mounts;
  if (!mount) return { kind: "directory", path: bundleRoot };
  if (others.length > 0) throw unknown(`there are ${mounts.length} mounts of it`);
  switch (mount.type) {
    case "overlay":
      return overlaySource(mount.options);
    case "bind":
      return { kind: "directory", path: mount.source };
    default:
      if (mount.source.startsWith("/dev/")) {
        return { kind: "block", path: mount.source, fstype: mount.type, options: mount.options };
      }
      throw unknown(`a mount of type "${mount.type}" is not known`);
  }
}

function overlaySource(options: readonly string[]): RootfsSource {
  const value = (name: string) =>
    options.find((option) => option.startsWith(`${name}=`))?.slice(name.length + 1);
  const directories = splitLower(value("lowerdir") ?? "");
  if (directories.length === 0) throw unknown("its overlay has no lowerdir");
  const upper = value("upperdir");
  return { kind: "layers", directories, ...(upper !== undefined && { upper }) };
}

/** Colons part directories; a backslash makes the next character plain (overlayfs.rst of Linux). */
function splitLower(text: string): string[] {
  const words = text.match(/(?:\\.|[^\\:])+/gs) ?? [];
  return words.map((word) => word.replace(/\\(.)/gs, "$1"));
}

function unknown(reason: string): HakoError {
  return new HakoError("UNIMPLEMENTED", `Cannot use the container's root file system: ${reason}`);
}
