import { statSync, writeFileSync } from "node:fs";
import { HakoError } from "#base/error.ts";
import { bindMount } from "#linux/mount.ts";
import { O, openFd } from "#sys/fd.ts";
import { descriptorPath, openBelow, openRoot } from "./safe-directory.ts";

const LINES_MAX = 64;
const LINE_MAX = 1024;
const GUEST_FILE = "/etc/resolv.conf";

/**
 * Gives the guest itself name servers: the lines of resolv.conf(5) that the runtime sends. The guest's root is
 * read-only, so the file lies in the run directory and is mounted over the guest's, if that has one.
 */
export function setGuestDns(lines: readonly string[], runDirectory: string, target = GUEST_FILE): void {
  if (lines.length === 0) return;
  if (lines.length > LINES_MAX || lines.some((line) => line.length > LINE_MAX || line.includes("\n"))) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Cannot set name servers: send at most ${LINES_MAX} single lines`,
    );
  }
  if (!statSync(target, { throwIfNoEntry: false })?.isFile()) return;
  using root = openRoot(runDirectory);
  using directory = openBelow(root, ["sandbox"], { make: 0o755 });
  const path = `${descriptorPath(directory)}/resolv.conf`;
  writeFileSync(path, `${lines.map((line) => line.trim()).join("\n")}\n`, { mode: 0o644 });
  using file = openFd(path, O.PATH);
  using place = openFd(target, O.PATH);
  bindMount(file, place, 0);
}
