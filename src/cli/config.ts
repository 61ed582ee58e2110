import { HakoError } from "#base/error.ts";
import type { ConfigDialect } from "#config/paths.ts";
import type { Arguments } from "./arguments.ts";
import type { Command } from "./command.ts";
import { JSON_OPTION } from "./command.ts";
import { print, printJson } from "./output.ts";
import { formatTable } from "./table.ts";

const EXIT_WRONG = 1;

export const command: Command = {
  name: "config",
  usage: "[OPTIONS] show | check | explain KEY | docs",
  summary: "Show, check and explain settings.",
  details: `  show          all settings in use, and the file and line that each comes from
  check         what is wrong or notable in the files; the exit code is 1 when they cannot be used
  explain KEY   what a key means; KEY may be its last part alone, or a table
  docs          a reference of all keys in Markdown

Settings are read from HAKO_CONFIG_FILE, else from KATA_CONF_FILE (a file that was written for Kata Containers, or "default"
for the installed one), else from /etc/hako/configuration.toml, and then from the files of config.d/ beside it.`,
  options: [
    { name: "file", kind: "value", placeholder: "FILE", help: "Read this file" },
    {
      name: "kata",
      kind: "flag",
      help: "The file was written for Kata Containers; without --file, the installed one",
    },
    { name: "changed", kind: "flag", help: "Show only what differs from the defaults" },
    JSON_OPTION,
  ],
  positionals: { min: 1, max: 2 },
  async run(input) {
    const [word, key] = input.positionals;
    if ((word === "explain") !== (key !== undefined)) {
      throw new HakoError(
        "INVALID_ARGUMENT",
        'Only "explain" takes a key, and it needs one (see "hako config --help")',
      );
    }
    switch (word) {
      case "show":
        return show(input);
      case "check":
        return check(input);
      case "explain":
        return explain(key ?? "", input.flag("json"));
      case "docs": {
        const { formatReference } = await import("#config/explain.ts");
        print(formatReference());
        return 0;
      }
      default:
        throw new HakoError(
          "INVALID_ARGUMENT",
          `Unknown word "${word}": use show, check, explain or docs (see "hako config --help")`,
        );
    }
  },
};

async function read(input: Arguments) {
  const { findKataConfig, findPaths } = await import("#config/paths.ts");
  const { readConfigFiles } = await import("#config/load.ts");
  const { checkConfig } = await import("#config/parse.ts");
  const paths = findPaths();
  const kata = input.flag("kata");
  const installed = kata ? findKataConfig() : paths.configFile;
  const path = input.value("file") ?? installed;
  if (path === undefined)
    throw new HakoError("NOT_FOUND", "No configuration of Kata Containers is installed");
  const explicit = kata || input.value("file") !== undefined;
  const dialect: ConfigDialect = explicit ? (kata ? "kata" : "hako") : paths.configDialect;
  const texts = await readConfigFiles(path, dialect);
  if (texts.length === 0 && input.value("file") !== undefined)
    throw new HakoError("NOT_FOUND", `Configuration "${path}" does not exist`);
  return { dialect, texts, checked: checkConfig(texts, dialect) };
}

async function show(input: Arguments): Promise<number> {
  const { listSettings } = await import("#config/catalog.ts");
  const { parseConfig } = await import("#config/parse.ts");
  const { checked, texts, dialect } = await read(input);
  const config = checked.config ?? parseConfig(texts, dialect).config;
  const rows = listSettings().map((setting) => {
    const key = setting.key.join(".");
    const value = setting.key.reduce<unknown>((table, part) => memberOf(table, part), config);
    const place = checked.place(key);
    return { key, value, place, fallback: setting.fallback };
  });
  const shown = rows.filter(
    ({ value, fallback }) => !input.flag("changed") || JSON.stringify(value) !== JSON.stringify(fallback),
  );
  if (input.flag("json")) {
    printJson(Object.fromEntries(shown.map(({ key, value }) => [key, value])));
    return 0;
  }
  print(
    formatTable(
      shown.map(({ key, value, place }) => [
        key,
        JSON.stringify(value),
        place ? `${place.path}:${place.line ?? "?"}` : "",
      ]),
    ),
  );
  return 0;
}

async function check(input: Arguments): Promise<number> {
  const { formatProblem } = await import("#config/parse.ts");
  const { checked, texts } = await read(input);
  const { config, problems } = checked;
  const files = texts.map(({ path }) => path);
  if (input.flag("json")) printJson({ usable: config !== undefined, files, problems });
  else {
    for (const problem of problems) print(`${problem.severity}: ${formatProblem(problem)}`);
    const errors = problems.filter(({ severity }) => severity === "error").length;
    const counts = `${errors} errors, ${problems.length - errors} warnings`;
    print(files.length === 0 ? "There is no file: the defaults hold." : `${files.join(", ")}: ${counts}`);
  }
  return config === undefined ? EXIT_WRONG : 0;
}

async function explain(key: string, json: boolean): Promise<number> {
  const { explainSetting, findSettings } = await import("#config/explain.ts");
  const { nearestKey } = await import("#config/catalog.ts");
  const found = findSettings(key);
  if (found.length === 0) {
    const near = nearestKey(key.split("."));
    throw new HakoError("NOT_FOUND", `Unknown key "${key}"${near ? `; did you mean "${near}"?` : ""}`);
  }
  if (json) printJson(found.map(({ schema: _, key: parts, ...rest }) => ({ key: parts.join("."), ...rest })));
  else print(found.map(explainSetting).join("\n\n"));
  return 0;
}

function memberOf(table: unknown, key: string): unknown {
  const member = key.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
  return (table as Record<string, unknown>)[member];
}
