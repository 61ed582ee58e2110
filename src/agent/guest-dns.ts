import { HakoError } from "#base/error.ts";
import { findStatus } from "#linux/file.ts";
import { bindMount } from "#linux/mount.ts";
import { O, openFd, writeAll } from "#sys/fd.ts";
import { descriptorPath, openBelow, openRoot } from "./safe-directory.ts";

const LINES_MAX = 64;
const LINE_MAX = 1024;
const GUEST_FILE = "/etc/resolv.conf";

/**
 * Gives the guest itself name servers: the lines of resolv.conf(5) that the runtime sends. In hako's guest image the
 * file is a link to a place that can be written. Elsewhere the file is mounted over, from the run directory, so that
 * a machine's own is never changed; a guest without one needs none.
 */
export function setGuestDns(lines: readonly string[], runDirectory: string, target = GUEST_FILE): void {
  if (lines.length === 0) return;
  if (lines.length > LINES_MAX || lines.some((line) => line.length > LINE_MAX || line.includes("\n"))) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Cannot set name servers: send at most ${LINES_MAX} single lines`,
    );
  }
  const text = `${lines.map((line) => line.trim()).join("\n")}\n`;
  const link = findStatus(target, { followLinks: false })?.kind === "symlink";
  const file = findStatus(target);
  if (link && !file) createText(target, text);
  else if (file?.kind === "file") mountOver(target, text, runDirectory);
}

function createText(path: string, text: string): void {
  using file = openFd(path, O.WRONLY | O.CREAT | O.TRUNC, 0o644);
  writeAll(file.number, Buffer.from(text), `"${path}"`);
}

function mountOver(target: string, text: string, runDirectory: string): void {
  using root = openRoot(runDirectory);
  using directory = openBelow(root, ["sandbox"], { make: 0o755 });
  const path = `${descriptorPath(directory)}/resolv.conf`;
  createText(path, text);
  using file = openFd(path, O.PATH);
  using place = openFd(target, O.PATH);
  bindMount(file, place, 0);
}
