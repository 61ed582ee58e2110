import { type Command, HELP_OPTION, type OptionSpec } from "./command.ts";
import { print } from "./output.ts";

/** Commands whose words are containers, and which of them `hako ps` has to list. */
const CONTAINER_COMMANDS: Readonly<Record<string, string>> = {
  exec: "",
  inspect: "-a",
  kill: "",
  logs: "-a",
  pause: "",
  resume: "",
  rm: "-a",
  stats: "",
  stop: "",
};

export const command: Command = {
  name: "completion",
  usage: "bash",
  summary: "Print the completion script for a shell.",
  details: "Try it with:  source <(hako completion bash)",
  options: [],
  positionals: { min: 1, max: 1 },
  async run(input) {
    const [shell] = input.positionals;
    if (shell !== "bash") {
      const { HakoError } = await import("#base/error.ts");
      throw new HakoError("INVALID_ARGUMENT", `No completion for shell "${shell}": only bash is known`);
    }
    const { COMMANDS } = await import("./main.ts");
    const commands = await Promise.all(
      [...COMMANDS.values()].map(async (entry) => (await entry.load()).command),
    );
    print(formatBashScript(commands));
    return 0;
  },
};

/** A script for bash-completion: words, options and their choices are in it, names of containers are asked for. */
export function formatBashScript(commands: readonly Command[]): string {
  const names = commands.map((entry) => entry.name).join(" ");
  return `# bash completion of hako; needs nothing but bash
_hako() {
  local current="\${COMP_WORDS[COMP_CWORD]}" previous="\${COMP_WORDS[COMP_CWORD-1]}" command="\${COMP_WORDS[1]}"
  COMPREPLY=()
  if (( COMP_CWORD == 1 )); then
    COMPREPLY=( $(compgen -W "${names} help" -- "$current") )
    return
  fi
  case "$command" in
${commands.map(formatCase).join("\n")}
  esac
}
complete -o bashdefault -o default -F _hako hako
`;
}

function formatCase(entry: Command): string {
  const options = [...entry.options, HELP_OPTION].flatMap(spellings).join(" ");
  const lines = entry.options
    .filter((option) => option.choices && option.kind !== "optional")
    .map(formatChoices);
  const containers = CONTAINER_COMMANDS[entry.name];
  const words =
    containers === undefined
      ? ""
      : `
      local names=$(hako ps ${containers} 2>/dev/null | awk 'NR > 1 { print $1, $NF }')
      COMPREPLY=( $(compgen -W "$names" -- "$current") )`;
  return `    ${entry.name})
${lines.join("")}      if [[ "$current" == -* ]]; then
        COMPREPLY=( $(compgen -W "${options}" -- "$current") )
        return
      fi${words}
      ;;`;
}

function formatChoices(option: OptionSpec): string {
  return `      if [[ "$previous" == --${option.name} ]]; then
        COMPREPLY=( $(compgen -W "${option.choices?.join(" ")}" -- "$current") )
        return
      fi
`;
}

function spellings(option: OptionSpec): string[] {
  return option.short ? [`--${option.name}`, `-${option.short}`] : [`--${option.name}`];
}
