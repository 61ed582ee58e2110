import { createHash } from "node:crypto";
import { closeSync, openSync, readFileSync } from "node:fs";
import { type HostStatus, listDirectory, readLink, readXattrs, statusAt } from "#image/host-directory.ts";

export interface DescribeOptions {
  /** Leave out what an unprivileged extraction cannot restore: owners, devices' numbers, attributes. */
  readonly unprivileged?: boolean;
  /** Leave out modification times, for extractors that do not restore them. */
  readonly times?: boolean;
  readonly xattrs?: boolean;
}

/**
 * One line of text for each file below a directory: type, mode, owners, size, time, links, device, target or digest
 * of the data, extended attributes, and for the second and later names of an inode the first one. Two trees are
 * the same when their lines are.
 */
export function describeTree(directory: string, options: DescribeOptions = {}): string[] {
  const lines: string[] = [];
  const firstNames = new Map<string, string>();
  const describe = (path: string, parent: number, name: string) => {
    const status = statusAt(parent, name);
    if (!status) return;
    const first = status.type === "directory" ? undefined : firstNames.get(status.identity);
    if (!first) firstNames.set(status.identity, path);
    lines.push(
      `${path} ${attributes(status, options)} ${data(parent, name, status, first)}${xattrs(parent, name, options)}`,
    );
    if (status.type !== "directory") return;
    const fd = openSync(`/proc/self/fd/${parent}/${name}`, "r");
    for (const child of listDirectory(fd)) describe(`${path}/${child}`, fd, child);
    closeSync(fd);
  };
  const top = openSync(directory, "r");
  describe("", top, ".");
  closeSync(top);
  return lines;
}

function attributes(status: HostStatus, options: DescribeOptions): string {
  const parts: (string | number)[] = [status.type, status.permissions.toString(8)];
  if (!options.unprivileged) parts.push(status.uid, status.gid);
  if (options.times !== false) parts.push(`${status.mtimeSeconds}.${status.mtimeNanoseconds}`);
  if (status.type !== "directory") parts.push(status.size, status.links);
  if (status.type === "character" || status.type === "block")
    parts.push(`${status.rdev.major}:${status.rdev.minor}`);
  return parts.join(" ");
}

function data(parent: number, name: string, status: HostStatus, first: string | undefined): string {
  if (first !== undefined) return `= ${first}`;
  if (status.type === "symlink") return `-> ${readLink(parent, name)}`;
  if (status.type !== "regular" || status.size === 0) return "";
  return createHash("sha256")
    .update(readFileSync(Buffer.from(`/proc/self/fd/${parent}/${name}`, "latin1")))
    .digest("hex");
}

function xattrs(parent: number, name: string, options: DescribeOptions): string {
  if (options.xattrs === false || options.unprivileged) return "";
  return readXattrs(parent, name, () => true)
    .map(({ name: key, value }) => ` ${key}=${Buffer.from(value).toString("hex")}`)
    .sort()
    .join("");
}
