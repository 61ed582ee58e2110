import type { Arguments } from "./arguments.ts";

/** One option of a command. */
export interface OptionSpec {
  /** Long name without dashes. */
  readonly name: string;
  /** One letter. */
  readonly short?: string;
  /**
   * `flag` takes no value; `value` takes one, the last wins; `list` collects all;
   * `optional` takes one only as `--name=value`.
   */
  readonly kind: "flag" | "value" | "list" | "optional";
  /** How the help names the value. */
  readonly placeholder?: string;
  /** The only values allowed. */
  readonly choices?: readonly string[];
  readonly help: string;
}

/** One word of the command line; each has a file of its own that exports `command`. */
export interface Command {
  readonly name: string;
  /** What follows the name in the usage line. */
  readonly usage: string;
  /** One sentence for the list of commands. */
  readonly summary: string;
  /** More paragraphs for the command's own help. */
  readonly details?: string;
  readonly options: readonly OptionSpec[];
  readonly positionals: {
    readonly min: number;
    readonly max: number;
    /** Options end at the first positional word; what follows belongs to the container. */
    readonly stopAtFirst?: boolean;
  };
  /** Resolves to the exit code. Throws HakoError, which becomes exit code 125. */
  run(input: Arguments): Promise<number>;
}

/** Every command has these. */
export const HELP_OPTION: OptionSpec = { name: "help", short: "h", kind: "flag", help: "Print this help" };
export const JSON_OPTION: OptionSpec = { name: "json", kind: "flag", help: "Print JSON" };
