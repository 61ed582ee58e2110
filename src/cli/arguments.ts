import { closest } from "#base/closest.ts";
import { HakoError } from "#base/error.ts";
import { type Command, HELP_OPTION, type OptionSpec } from "./command.ts";

/** The parsed words of one command. Asking for an option that the command does not declare is a defect. */
export class Arguments {
  readonly positionals: readonly string[];
  readonly #options: ReadonlyMap<string, OptionSpec>;
  readonly #values: ReadonlyMap<string, readonly string[]>;

  constructor(
    positionals: readonly string[],
    options: ReadonlyMap<string, OptionSpec>,
    values: ReadonlyMap<string, readonly string[]>,
  ) {
    this.positionals = positionals;
    this.#options = options;
    this.#values = values;
  }

  flag(name: string): boolean {
    return this.#lookup(name, "flag").at(-1) === "true";
  }

  value(name: string): string | undefined {
    return this.#lookup(name, "value").at(-1);
  }

  list(name: string): readonly string[] {
    return this.#lookup(name, "list");
  }

  /** Undefined when not given, empty when given without a value. */
  optional(name: string): string | undefined {
    return this.#lookup(name, "optional").at(-1);
  }

  #lookup(name: string, kind: OptionSpec["kind"]): readonly string[] {
    if (this.#options.get(name)?.kind !== kind)
      throw new HakoError("INTERNAL", `No ${kind} option "${name}" is declared`);
    return this.#values.get(name) ?? [];
  }
}

/** Parses the words after the command's name. Throws INVALID_ARGUMENT with a hint where one can be given. */
export function parseArguments(command: Command, words: readonly string[]): Arguments {
  return new Parser(command, words).parse();
}

class Parser {
  readonly #command: Command;
  readonly #words: readonly string[];
  readonly #byName: Map<string, OptionSpec>;
  readonly #byShort = new Map<string, OptionSpec>();
  readonly #values = new Map<string, string[]>();
  readonly #positionals: string[] = [];
  #next = 0;

  constructor(command: Command, words: readonly string[]) {
    this.#command = command;
    this.#words = words;
    const options = [...command.options, HELP_OPTION];
    this.#byName = new Map(options.map((option) => [option.name, option]));
    for (const option of options) if (option.short) this.#byShort.set(option.short, option);
  }

  parse(): Arguments {
    for (let word = this.#take(); word !== undefined; word = this.#take()) {
      if (word === "--") this.#takeRest();
      else if (word.startsWith("--")) this.#long(word.slice(2));
      else if (word.startsWith("-") && word !== "-") this.#cluster(word.slice(1));
      else {
        this.#positionals.push(word);
        if (this.#command.positionals.stopAtFirst) this.#takeRest();
      }
    }
    const parsed = new Arguments(this.#positionals, this.#byName, this.#values);
    if (!parsed.flag(HELP_OPTION.name)) this.#checkCount();
    return parsed;
  }

  #take(): string | undefined {
    return this.#words[this.#next++];
  }

  #takeRest(): void {
    this.#positionals.push(...this.#words.slice(this.#next));
    this.#next = this.#words.length;
  }

  #long(word: string): void {
    const equals = word.indexOf("=");
    const name = equals < 0 ? word : word.slice(0, equals);
    const option = this.#byName.get(name);
    if (!option) throw this.#unknown(`--${name}`);
    this.#store(option, `--${name}`, equals < 0 ? undefined : word.slice(equals + 1));
  }

  /** `-it`, `-eNAME=value`, `-w=/tmp`. */
  #cluster(letters: string): void {
    for (let index = 0; index < letters.length; index++) {
      const letter = letters.charAt(index);
      const option = this.#byShort.get(letter);
      if (!option) throw this.#unknown(`-${letter}`);
      if (option.kind === "flag") {
        this.#store(option, `-${letter}`, undefined);
        continue;
      }
      const rest = letters.slice(index + 1);
      this.#store(option, `-${letter}`, rest === "" ? undefined : rest.replace(/^=/, ""));
      return;
    }
  }

  #store(option: OptionSpec, spelled: string, attached: string | undefined): void {
    const value = this.#valueFor(option, spelled, attached);
    if (option.choices && value !== "" && !option.choices.includes(value)) {
      throw this.#wrong(`${spelled} cannot be "${value}": choose ${option.choices.join(" or ")}`);
    }
    const stored = this.#values.get(option.name) ?? [];
    stored.push(value);
    this.#values.set(option.name, stored);
  }

  #valueFor(option: OptionSpec, spelled: string, attached: string | undefined): string {
    if (option.kind === "flag") {
      if (attached === undefined || attached === "true") return "true";
      if (attached === "false") return "false";
      throw this.#wrong(`${spelled} takes no value other than true or false`);
    }
    if (attached !== undefined) return attached;
    if (option.kind === "optional") return "";
    const value = this.#take();
    if (value === undefined) throw this.#wrong(`${spelled} needs a value (${option.placeholder ?? "VALUE"})`);
    return value;
  }

  #checkCount(): void {
    const { min, max } = this.#command.positionals;
    const count = this.#positionals.length;
    if (count < min) throw this.#wrong(`Too few words for "hako ${this.#command.name}"`);
    if (count > max)
      throw this.#wrong(`Unexpected word "${this.#positionals[max]}" for "hako ${this.#command.name}"`);
  }

  #unknown(spelled: string): HakoError {
    const names = [...this.#byName.keys()].map((name) => `--${name}`);
    const near = spelled.startsWith("--") ? closest(spelled, names) : undefined;
    const hint = near ? `; did you mean "${near}"?` : "";
    return this.#wrong(`Unknown option "${spelled}" for "hako ${this.#command.name}"${hint}`);
  }

  #wrong(message: string): HakoError {
    return new HakoError("INVALID_ARGUMENT", `${message} (see "hako ${this.#command.name} --help")`);
  }
}
