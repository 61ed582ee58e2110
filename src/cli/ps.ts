import type { ContainerState, SandboxState } from "#runtime/state.ts";
import type { Command } from "./command.ts";
import { JSON_OPTION } from "./command.ts";
import { formatAge } from "./duration.ts";
import { print, printJson } from "./output.ts";
import { containerOf, openStore } from "./store.ts";
import { formatTable } from "./table.ts";

const SHORT_ID_LENGTH = 12;
const MAX_COMMAND_LENGTH = 30;

export const command: Command = {
  name: "ps",
  usage: "[OPTIONS]",
  summary: "List containers that run; with -a, also those that do not.",
  options: [
    { name: "all", short: "a", kind: "flag", help: "Also those that have stopped or are being created" },
    { name: "quiet", short: "q", kind: "flag", help: "Print nothing but ids" },
    { name: "no-trunc", kind: "flag", help: "Print ids and commands in full" },
    JSON_OPTION,
  ],
  positionals: { min: 0, max: 0 },
  async run(input) {
    const store = await openStore();
    const states = (await store.list())
      .reverse()
      .filter((state) => input.flag("all") || state.status === "running");
    const full = input.flag("no-trunc");
    if (input.flag("json")) printJson(states.map(summarize));
    else if (input.flag("quiet")) for (const state of states) print(shortId(state, full));
    else print(formatList(states, full));
    return 0;
  },
};

function summarize(state: SandboxState) {
  const container = containerOf(state);
  return {
    id: state.id,
    name: state.name,
    image: container?.image ?? null,
    command: container?.args ?? [],
    createdAt: state.createdAt,
    status: container?.status ?? state.status,
    exitCode: container?.exitCode ?? null,
  };
}

function formatList(states: readonly SandboxState[], full: boolean): string {
  const rows = states.map((state) => {
    const container = containerOf(state);
    return [
      shortId(state, full),
      container?.image ?? "",
      formatCommand(container?.args ?? [], full),
      `${formatAge(state.createdAt)} ago`,
      formatStatus(state, container),
      state.name,
    ];
  });
  return formatTable([["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "NAME"], ...rows]);
}

function shortId(state: SandboxState, full: boolean): string {
  return full ? state.id : state.id.slice(0, SHORT_ID_LENGTH);
}

function formatCommand(args: readonly string[], full: boolean): string {
  const text = JSON.stringify(args.join(" "));
  return full || text.length <= MAX_COMMAND_LENGTH ? text : `${text.slice(0, MAX_COMMAND_LENGTH - 2)}…"`;
}

function formatStatus(state: SandboxState, container: ContainerState | undefined): string {
  if (!container || container.status === "creating" || container.status === "created") return "Starting";
  if (container.status === "stopped") {
    const when = container.finishedAt ? ` ${formatAge(container.finishedAt)} ago` : "";
    return `Exited (${container.exitCode ?? "?"})${when}`;
  }
  const paused = container.status === "paused" ? " (paused)" : "";
  return `Up ${formatAge(container.startedAt ?? state.createdAt)}${paused}`;
}
