import { readdirSync } from "node:fs";
import { join } from "node:path";
import { runTool } from "./erofs-tools.ts";
import { cachedFixture, type ImageKind } from "./images.ts";

/** Raise it when the fixtures change. */
const VERSION = 1;
const SUITE = "bookworm";

const toolsFor: Readonly<Record<ImageKind, readonly string[]>> = {
  rootfs: ["debootstrap"],
  oci: ["debootstrap", "umoci"],
  "oci-archive": ["debootstrap", "umoci", "skopeo"],
  "docker-archive": ["debootstrap", "umoci", "skopeo"],
};

/** Why {@link debianImage} cannot be made here; undefined when it can. */
export function debianMissing(kind: ImageKind): string | undefined {
  if (process.getuid?.() !== 0) return "needs root";
  const missing = toolsFor[kind].filter((tool) => !Bun.which(tool));
  return missing.length > 0
    ? `needs ${missing.join(" and ")} (Debian packages of the same names)`
    : undefined;
}

/**
 * The reference of a small Debian (debootstrap, minbase), made at first use, which takes a minute and the
 * network, and kept: as a directory; as an OCI layout by umoci, in three layers of which the second removes
 * /usr/share/doc and the third adds /hako-was-here; as archives of that by skopeo. Cmd is `bash`.
 */
export async function debianImage(kind: ImageKind): Promise<string> {
  const key = `debian-${SUITE}-${VERSION}-${kind}`;
  const directory = await cachedFixture(key, async (making) => {
    if (kind === "rootfs") bootstrap(join(making, "rootfs"));
    else if (kind === "oci") await makeLayout(join(making, "layout"));
    else await makeArchive(kind, join(making, "archive.tar"));
  });
  if (kind === "rootfs") return `rootfs:${join(directory, "rootfs")}`;
  if (kind === "oci") return `oci:${join(directory, "layout")}:${SUITE}`;
  return `${kind}:${join(directory, "archive.tar")}`;
}

function bootstrap(rootfs: string): void {
  runTool("debootstrap", "--variant=minbase", SUITE, rootfs);
  // Downloaded packages only make the fixture larger.
  runTool(
    "rm",
    "-rf",
    ...readdirSync(join(rootfs, "var/cache/apt/archives")).map((name) =>
      join(rootfs, "var/cache/apt/archives", name),
    ),
  );
}

async function makeLayout(layout: string): Promise<void> {
  const rootfs = (await debianImage("rootfs")).slice("rootfs:".length);
  const image = `${layout}:${SUITE}`;
  runTool("umoci", "init", "--layout", layout);
  runTool("umoci", "new", "--image", image);
  runTool("umoci", "insert", "--image", image, rootfs, "/");
  runTool("umoci", "insert", "--image", image, "--whiteout", "/usr/share/doc");
  runTool("umoci", "insert", "--image", image, "/etc/hostname", "/hako-was-here");
  runTool("umoci", "config", "--image", image, "--config.cmd", "bash", "--config.env", "LANG=C.UTF-8");
  runTool("umoci", "gc", "--layout", layout);
}

async function makeArchive(kind: "oci-archive" | "docker-archive", path: string): Promise<void> {
  const name = kind === "docker-archive" ? `debian:${SUITE}` : SUITE;
  runTool("skopeo", "--insecure-policy", "copy", await debianImage("oci"), `${kind}:${path}:${name}`);
}
