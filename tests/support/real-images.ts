import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { runTool } from "./erofs-tools.ts";
import { cachedFixture, hasFixture, type ImageKind } from "./images.ts";

/** Raise it when the fixtures change. */
const VERSION = 1;
const TAG = "test";

const toolsFor: Readonly<Record<ImageKind, readonly string[]>> = {
  rootfs: ["debootstrap", "wget"],
  oci: ["debootstrap", "wget", "umoci"],
  "oci-archive": ["debootstrap", "wget", "umoci", "skopeo"],
  "docker-archive": ["debootstrap", "wget", "umoci", "skopeo"],
};

/** The host's own release and the mirror that apt is configured with. */
function findMirror(): { suite: string; uri: string } | undefined {
  const format = "$(CODENAME) $(COMPONENT) $(REPO_URI)";
  const command = ["apt-get", "indextargets", "--format", format, "Created-By: Packages"];
  const release = /^VERSION_CODENAME=(\w+)/m.exec(readFileSync("/etc/os-release", "utf8"))?.[1];
  if (!Bun.which("apt-get") || release === undefined) return undefined;
  const line = runTool(...command)
    .split("\n")
    .find((target) => target.startsWith(`${release} main `));
  return line === undefined ? undefined : { suite: release, uri: line.split(" ")[2] ?? "" };
}

/** Why {@link debianImage} cannot be made here; undefined when it can. Asks the mirror if it was never made. */
export function debianMissing(kind: ImageKind): string | undefined {
  if (process.getuid?.() !== 0) return "needs root";
  const missing = toolsFor[kind].filter((tool) => !Bun.which(tool));
  if (missing.length > 0) return `needs ${missing.join(" and ")} (Debian packages of the same names)`;
  return hasFixture(key("rootfs")) ? undefined : mirrorMissing();
}

let mirrorReason: { readonly reason: string | undefined } | undefined;

function mirrorMissing(): string | undefined {
  mirrorReason ??= { reason: askMirror() };
  return mirrorReason.reason;
}

function askMirror(): string | undefined {
  const mirror = findMirror();
  if (!mirror) return "needs Debian with a mirror configured for apt";
  const release = `${mirror.uri}dists/${mirror.suite}/Release`;
  const { exitCode } = Bun.spawnSync(["wget", "--quiet", "--spider", "--tries=1", "--timeout=15", release]);
  return exitCode === 0 ? undefined : "needs the Debian mirror that apt is configured with";
}

function key(kind: ImageKind): string {
  return `debian-${VERSION}-${kind}`;
}

/**
 * The reference of a small Debian (debootstrap, minbase), made at first use, which takes a minute and the
 * network, and kept: as a directory; as an OCI layout by umoci, in three layers of which the second removes
 * /usr/share/doc and the third adds /hako-was-here; as archives of that by skopeo. Cmd is `bash`.
 */
export async function debianImage(kind: ImageKind): Promise<string> {
  const directory = await cachedFixture(key(kind), async (making) => {
    if (kind === "rootfs") bootstrap(join(making, "rootfs"));
    else if (kind === "oci") await makeLayout(join(making, "layout"));
    else await makeArchive(kind, join(making, "archive.tar"));
  });
  if (kind === "rootfs") return `rootfs:${join(directory, "rootfs")}`;
  if (kind === "oci") return `oci:${join(directory, "layout")}:${TAG}`;
  return `${kind}:${join(directory, "archive.tar")}`;
}

function bootstrap(rootfs: string): void {
  const mirror = findMirror();
  if (!mirror) throw new Error(mirrorMissing());
  runTool("debootstrap", "--variant=minbase", mirror.suite, rootfs, mirror.uri);
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
  const image = `${layout}:${TAG}`;
  runTool("umoci", "init", "--layout", layout);
  runTool("umoci", "new", "--image", image);
  runTool("umoci", "insert", "--image", image, rootfs, "/");
  runTool("umoci", "insert", "--image", image, "--whiteout", "/usr/share/doc");
  runTool("umoci", "insert", "--image", image, "/etc/hostname", "/hako-was-here");
  runTool("umoci", "config", "--image", image, "--config.cmd", "bash", "--config.env", "LANG=C.UTF-8");
  runTool("umoci", "gc", "--layout", layout);
}

async function makeArchive(kind: "oci-archive" | "docker-archive", path: string): Promise<void> {
  const name = kind === "docker-archive" ? `debian:${TAG}` : TAG;
  runTool("skopeo", "--insecure-policy", "copy", await debianImage("oci"), `${kind}:${path}:${name}`);
}
