import { readFileSync, readlinkSync } from "node:fs";
import { release } from "node:os";
import { findEmbedded } from "#base/embedded.ts";
import { version } from "#base/version.ts";
import { loadConfig } from "#config/load.ts";
import { findPaths } from "#config/paths.ts";
import type { Command } from "./command.ts";
import { JSON_OPTION } from "./command.ts";
import { print, printJson } from "./output.ts";
import { formatTable } from "./table.ts";

export const command: Command = {
  name: "env",
  usage: "[OPTIONS]",
  summary: "Print paths, versions and settings in use.",
  options: [JSON_OPTION],
  positionals: { min: 0, max: 0 },
  async run(input) {
    const paths = findPaths();
    const found = {
      version,
      executable: readlinkSync("/proc/self/exe"),
      guestKernel: readEmbedded("kernel-version"),
      hostKernel: release(),
      bun: Bun.version,
      ...paths,
      config: await loadConfig(paths.configFile, paths.configDialect),
    };
    if (input.flag("json")) printJson(found);
    else print(formatTable(flatten(found)));
    return 0;
  },
};

function readEmbedded(name: string): string | null {
  const file = findEmbedded(name);
  return file ? readFileSync(file.path, "utf8").trim() : null;
}

/** Members of members as `a.b`. */
function flatten(value: object, prefix = ""): string[][] {
  return Object.entries(value).flatMap(([key, member]: [string, unknown]) => {
    const isTable = typeof member === "object" && member !== null && !Array.isArray(member);
    if (isTable) return flatten(member, `${prefix}${key}.`);
    return [[`${prefix}${key}`, typeof member === "string" ? member : JSON.stringify(member)]];
  });
}
