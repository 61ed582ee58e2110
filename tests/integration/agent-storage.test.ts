import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { storageHandlerContract } from "../contract/storage-handler.ts";
import type { AgentProcess } from "../support/agent-process.ts";

/** A directory of the machine below the run directory. */
function directory(box: AgentProcess, name: string): string {
  const path = join(box.runDirectory, "source", name);
  mkdirSync(path, { recursive: true });
  return path;
}

storageHandlerContract({
  name: "bind of a directory",
  lifetime: "container",
  mounts: true,
  storage: (box, mountPoint) => ({
    driver: "bind",
    source: directory(box, "d"),
    mountPoint,
    options: ["ro"],
  }),
});

storageHandlerContract({
  name: "bind of a file",
  lifetime: "container",
  mounts: true,
  storage(box, mountPoint) {
    const source = join(directory(box, "f"), "file");
    writeFileSync(source, "content");
    return { driver: "bind", source, mountPoint, options: ["rbind", "rprivate"] };
  },
});

storageHandlerContract({
  name: "overlayfs",
  lifetime: "container",
  mounts: true,
  storage(box, mountPoint) {
    const [lower, other] = [directory(box, "lower"), directory(box, "other:one")];
    const options = [`lowerdir=${lower}:${other.replace(":", "\\:")}`];
    return { driver: "overlayfs", source: "overlay", fstype: "overlay", mountPoint, options };
  },
});

storageHandlerContract({
  name: "ephemeral",
  lifetime: "sandbox",
  mounts: true,
  storage: (_, mountPoint) => ({
    driver: "ephemeral",
    source: "tmpfs",
    fstype: "tmpfs",
    mountPoint,
    options: ["size=1m"],
  }),
});

storageHandlerContract({
  name: "local",
  lifetime: "sandbox",
  mounts: false,
  storage: (_, mountPoint) => ({ driver: "local", mountPoint, options: ["mode=0700"] }),
});
