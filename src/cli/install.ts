import { copyFile, readFile, rename, stat, writeFile } from "node:fs/promises";
import { HakoError } from "#base/error.ts";
import type { Arguments } from "./arguments.ts";
import type { Command } from "./command.ts";
import { lineDiff } from "./install/line-diff.ts";
import { installLink, linkPath, ownExecutable, removeLink } from "./install/shim-link.ts";
import { print } from "./output.ts";

const DEFAULT_DIRECTORY = "/usr/local/bin";

export const command: Command = {
  name: "install",
  usage: "[OPTIONS]",
  summary: "Make hako a runtime of containerd on this host, or take that back.",
  details: `Links containerd-shim-hako-v2 to this executable in a directory of containerd's search path, and with --containerd adds a
runtime handler "hako" to that configuration: the change is shown and a copy of the file kept. Doing it again changes nothing.`,
  options: [
    {
      name: "containerd",
      kind: "value",
      placeholder: "CONFIG",
      help: "Edit this configuration of containerd, as /etc/containerd/config.toml",
    },
    {
      name: "directory",
      kind: "value",
      placeholder: "DIR",
      help: `Where the links go (default: ${DEFAULT_DIRECTORY})`,
    },
    { name: "kata", kind: "flag", help: "Link containerd-shim-kata-v2, too" },
    { name: "uninstall", kind: "flag", help: "Take everything out again" },
    { name: "dry-run", short: "n", kind: "flag", help: "Only show what would change" },
    {
      name: "print",
      kind: "value",
      placeholder: "WHAT",
      choices: ["kubernetes"],
      help: "Print a RuntimeClass whose overhead is measured here; change nothing",
    },
  ],
  positionals: { min: 0, max: 0 },
  async run(input) {
    if (input.value("print") !== undefined) {
      const { measureOverhead, runtimeClass } = await import("./install/pod-overhead.ts");
      print(runtimeClass(await measureOverhead()));
      return 0;
    }
    changeLinks(input);
    const config = input.value("containerd");
    const changed = config !== undefined && (await changeConfig(config, input));
    if (changed && !input.flag("dry-run"))
      print("Restart containerd to let it know: systemctl restart containerd");
    return 0;
  },
};

function changeLinks(input: Arguments): void {
  const directory = input.value("directory") ?? DEFAULT_DIRECTORY;
  const uninstall = input.flag("uninstall");
  const runtimes = ["hako", ...(input.flag("kata") || uninstall ? ["kata"] : [])] as ("hako" | "kata")[];
  for (const runtime of runtimes) {
    const path = linkPath(directory, runtime);
    if (input.flag("dry-run")) print(`${path}: would be ${uninstall ? "removed" : "made"}`);
    else if (!uninstall) print(`${path}: ${installLink(path, ownExecutable())}`);
    else if (runtime === "hako" || input.flag("kata")) print(`${path}: ${removeLink(path)}`);
    else removeIfOurs(path);
  }
}

/** Kata's own shim may be there: without the option it is none of our business. */
function removeIfOurs(path: string): void {
  try {
    if (removeLink(path) === "removed") print(`${path}: removed`);
  } catch (error) {
    if (!(error instanceof HakoError) || error.code !== "ALREADY_EXISTS") throw error;
  }
}

/** True when the file is, or would be, another one. */
async function changeConfig(path: string, input: Arguments): Promise<boolean> {
  const { editContainerdConfig } = await import("./install/containerd-section.ts");
  const before = await readConfig(path);
  const after = editContainerdConfig(before ?? "", path, input.flag("uninstall") ? "removed" : "installed");
  if (after === (before ?? "")) {
    print(`${path}: unchanged`);
    return false;
  }
  print(`${path}:\n${lineDiff(before ?? "", after)}`);
  if (!input.flag("dry-run")) await replaceConfig(path, before, after);
  return true;
}

async function readConfig(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch (cause) {
    if (cause instanceof Error && "code" in cause && cause.code === "ENOENT") return undefined;
    throw new HakoError("PERMISSION_DENIED", `Cannot read "${path}"`, { cause });
  }
}

/** At one stroke, with the permissions that the file had; the file of before is kept beside it. */
async function replaceConfig(path: string, before: string | undefined, after: string): Promise<void> {
  const mode = before === undefined ? 0o644 : (await stat(path)).mode & 0o777;
  if (before !== undefined) {
    const backup = `${path}.${new Date().toISOString().replace(/[:.]/g, "-")}.bak`;
    await copyFile(path, backup);
    print(`The file of before is "${backup}"`);
  }
  await writeFile(`${path}.new`, after, { mode });
  await rename(`${path}.new`, path);
}
