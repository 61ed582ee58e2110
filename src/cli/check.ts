import type { HostCheck } from "#runtime/host-check.ts";
import type { Command } from "./command.ts";
import { JSON_OPTION } from "./command.ts";
import { print, printJson } from "./output.ts";
import { formatTable } from "./table.ts";

const EXIT_CANNOT_RUN = 1;

export const command: Command = {
  name: "check",
  usage: "[OPTIONS]",
  summary: "Say whether this host can run containers, and why not.",
  details: "The exit code is 0 when it can, 1 when it cannot.",
  options: [JSON_OPTION],
  positionals: { min: 0, max: 0 },
  async run(input) {
    const { checkHost } = await import("#runtime/host-check.ts");
    const { findPaths } = await import("#config/paths.ts");
    const { loadConfig } = await import("#config/load.ts");
    const paths = findPaths();
    const checks = await checkHost(await loadConfig(paths.configFile, paths.configDialect), paths);
    const canRun = checks.every(({ needed, state }) => !needed || state !== "missing");
    if (input.flag("json")) printJson({ canRun, checks });
    else print(formatChecks(checks, canRun));
    return canRun ? 0 : EXIT_CANNOT_RUN;
  },
};

function formatChecks(checks: readonly HostCheck[], canRun: boolean): string {
  const rows = checks.map(({ name, state, detail }) => [state, name, detail]);
  const limited = checks.some(({ state }) => state !== "ok");
  const verdict = canRun
    ? `This host can run containers${limited ? ", with the limits above" : ""}.`
    : "This host cannot run containers: see what is missing above.";
  return `${formatTable(rows)}\n\n${verdict}`;
}
