import { HakoError } from "#base/error.ts";
import { formatSize } from "#base/size.ts";
import { loadConfig } from "#config/load.ts";
import { findPaths } from "#config/paths.ts";
import { StateStore } from "#runtime/state-store.ts";
import type { TemplateStatus } from "#runtime/template/template-store.ts";
import { Timeline } from "#runtime/timeline.ts";
import { openTemplateStore, prepareTemplate } from "#runtime/virt-container/template.ts";
import type { Arguments } from "./arguments.ts";
import type { Command } from "./command.ts";
import { JSON_OPTION } from "./command.ts";
import { formatAge } from "./duration.ts";
import { print, printJson } from "./output.ts";
import { parseCpus, parseMemory } from "./run-request.ts";
import { SignalRouter } from "./signals.ts";
import { formatTable } from "./table.ts";

const KEY_SHOWN = 12;

export const command: Command = {
  name: "factory",
  usage: "init|status|destroy [OPTIONS] [KEY...]",
  summary: "Make, list and remove templates that sandboxes are cloned from.",
  details: `init     makes the template for machines of this size now; "hako run" makes it by itself at first use
status   lists the templates with their size, what they hold on disk and when one was last cloned
destroy  removes the templates named by the beginning of their key, or with --all every one; clones go on`,
  options: [
    { name: "cpus", kind: "value", placeholder: "N", help: "init: CPUs, as for hako run" },
    { name: "memory", short: "m", kind: "value", placeholder: "SIZE", help: "init: memory, as for hako run" },
    { name: "hypervisor", kind: "value", placeholder: "NAME", help: "init: virtual machine monitor" },
    { name: "all", kind: "flag", help: "destroy: every template" },
    JSON_OPTION,
  ],
  positionals: { min: 1, max: Number.POSITIVE_INFINITY },
  async run(input) {
    const [action, ...keys] = input.positionals;
    switch (action) {
      case "init":
        return init(input, keys);
      case "status":
        return status(input, keys);
      case "destroy":
        return destroy(input, keys);
      default:
        throw new HakoError("INVALID_ARGUMENT", `Cannot "${action}": choose init, status or destroy`);
    }
  },
};

async function init(input: Arguments, keys: readonly string[]): Promise<number> {
  refuseKeys(keys, "init");
  const paths = findPaths();
  const config = await loadConfig(paths.configFile, paths.configDialect);
  const store = new StateStore(paths.runDir);
  const cpus = parseCpus(input.value("cpus"));
  const memory = parseMemory(input.value("memory"));
  const hypervisor = input.value("hypervisor");
  const size = {
    ...(cpus === undefined ? {} : { vcpus: Math.ceil(cpus) }),
    ...(memory === undefined ? {} : { memoryMib: memory }),
    ...(hypervisor === undefined ? {} : { hypervisor }),
  };
  using signals = new SignalRouter();
  try {
    const context = { paths, config, store, timeline: new Timeline() };
    const template = await prepareTemplate(size, context, signals.aborted);
    if (input.flag("json")) printJson(template);
    else print(`${template.key.slice(0, KEY_SHOWN)} is ready`);
    return 0;
  } catch (error) {
    if (signals.exitCode !== undefined) return signals.exitCode;
    throw error;
  }
}

async function status(input: Arguments, keys: readonly string[]): Promise<number> {
  refuseKeys(keys, "status");
  const templates = await openTemplateStore(findPaths().stateDir).list();
  if (input.flag("json")) printJson(templates);
  else print(formatTemplates(templates));
  return 0;
}

async function destroy(input: Arguments, keys: readonly string[]): Promise<number> {
  const all = input.flag("all");
  if (all === keys.length > 0) {
    throw new HakoError("INVALID_ARGUMENT", "Name the templates to destroy by their keys, or give --all");
  }
  const store = openTemplateStore(findPaths().stateDir);
  const templates = await store.list();
  const chosen = all ? templates : keys.map((key) => lookup(templates, key));
  for (const { key } of chosen) await store.destroy(key);
  if (input.flag("json")) printJson(chosen.map(({ key }) => key));
  else if (chosen.length > 0) print(chosen.map(({ key }) => key.slice(0, KEY_SHOWN)).join("\n"));
  return 0;
}

function lookup(templates: readonly TemplateStatus[], beginning: string): TemplateStatus {
  const matching = templates.filter(({ key }) => beginning !== "" && key.startsWith(beginning));
  const [only] = matching;
  if (only && matching.length === 1) return only;
  if (only) {
    throw new HakoError("INVALID_ARGUMENT", `"${beginning}" is the beginning of ${matching.length} keys`);
  }
  throw new HakoError("NOT_FOUND", `There is no template "${beginning}" (hako factory status lists them)`);
}

function refuseKeys(keys: readonly string[], action: string): void {
  if (keys.length === 0) return;
  throw new HakoError("INVALID_ARGUMENT", `Unexpected word "${keys[0]}": "${action}" takes no key`);
}

function formatTemplates(templates: readonly TemplateStatus[]): string {
  const rows = templates.map(({ key, driver, vcpus, memoryMib, diskBytes, createdAt, usedAt, tookMs }) => [
    key.slice(0, KEY_SHOWN),
    driver,
    String(vcpus),
    `${memoryMib} MiB`,
    formatSize(diskBytes),
    `${(tookMs / 1000).toFixed(1)} s`,
    `${formatAge(createdAt)} ago`,
    `${formatAge(usedAt)} ago`,
  ]);
  const head = ["TEMPLATE", "MONITOR", "CPUS", "MEMORY", "ON DISK", "TOOK", "CREATED", "USED"];
  return formatTable([head, ...rows], new Set([2, 3, 4, 5]));
}
