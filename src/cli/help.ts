import { type Command, HELP_OPTION, type OptionSpec } from "./command.ts";
import { formatTable } from "./table.ts";

/** The list of commands. */
export function formatOverview(commands: ReadonlyMap<string, { readonly summary: string }>): string {
  const rows = [...commands].map(([name, { summary }]) => [`  ${name}`, summary]);
  return [
    "Usage: hako COMMAND [OPTIONS]",
    "",
    "Runs containers, each in a virtual machine of its own.",
    "",
    "Commands:",
    formatTable(rows),
    "",
    'See "hako COMMAND --help" for the options of a command.',
    "",
  ].join("\n");
}

/** The help of one command. */
export function formatHelp(command: Command): string {
  const rows = [...command.options, HELP_OPTION].map((option) => [`  ${spell(option)}`, describe(option)]);
  const parts = [`Usage: hako ${command.name} ${command.usage}`.trimEnd(), "", command.summary];
  if (command.details) parts.push("", command.details);
  parts.push("", "Options:", formatTable(rows), "");
  return parts.join("\n");
}

function spell(option: OptionSpec): string {
  const short = option.short ? `-${option.short}, ` : "    ";
  const value = option.placeholder ?? "VALUE";
  if (option.kind === "flag") return `${short}--${option.name}`;
  if (option.kind === "optional") return `${short}--${option.name}[=${value}]`;
  return `${short}--${option.name} ${value}`;
}

function describe(option: OptionSpec): string {
  const repeatable = option.kind === "list" ? " (may be repeated)" : "";
  const choices = option.choices ? `: ${option.choices.join(" or ")}` : "";
  return `${option.help}${choices}${repeatable}`;
}
