import { HakoError } from "#base/error.ts";
import { formatValue, RegoObject, type Value } from "./value.ts";

/** What one question to a policy may cost; the policy or the request may be hostile. */
export interface EvaluationLimits {
  /** Conditions tried, elements looked at, calls made. */
  readonly steps: number;
  /** Characters, elements and members made. */
  readonly size: number;
  /** Rules within rules. */
  readonly depth: number;
}

export const DEFAULT_LIMITS: EvaluationLimits = { steps: 2_000_000, size: 32 * 1024 * 1024, depth: 100 };

const PRINTS_MAX = 1000;
const PRINT_LENGTH_MAX = 2000;

/** What is seen of an evaluation that explains itself. */
export interface Observer {
  /** A condition of a clause is tried. */
  reached(clause: number, index: number): void;
  print(line: string): void;
}

/** The state of one evaluation. Compiled policies are functions over it; evaluations never overlap. */
export class Machine {
  input: Value | undefined;
  data = new RegoObject();
  /** The values of rules, by their numbers, in the current input and data. */
  rules: (Value | symbol | undefined)[] = [];
  observer: Observer | undefined;
  #limits = DEFAULT_LIMITS;
  #steps = 0;
  #size = 0;
  #depth = 0;
  #prints = 0;

  begin(input: Value | undefined, data: RegoObject, limits: EvaluationLimits, observer?: Observer): void {
    this.input = input;
    this.data = data;
    this.rules = [];
    this.observer = observer;
    this.#limits = limits;
    this.#steps = 0;
    this.#size = 0;
    this.#depth = 0;
    this.#prints = 0;
  }

  /** Steps taken by the evaluation so far. */
  get steps(): number {
    return this.#steps;
  }

  /** Counts work. Throws RESOURCE_EXHAUSTED. */
  step(count = 1): void {
    this.#steps += count;
    if (this.#steps > this.#limits.steps) throw exhausted(`more than ${this.#limits.steps} steps`);
  }

  /** Counts what is made: characters, elements. Throws RESOURCE_EXHAUSTED. */
  charge(size: number): void {
    this.#size += size + 1;
    if (this.#size > this.#limits.size) throw exhausted(`more than ${this.#limits.size} units of memory`);
  }

  /** Before a rule is evaluated within another. */
  enter(): void {
    this.step();
    if (++this.#depth > this.#limits.depth) throw exhausted(`rules ${this.#limits.depth} deep`);
  }

  leave(): void {
    this.#depth--;
  }

  print(values: readonly (Value | undefined)[]): void {
    if (!this.observer || ++this.#prints > PRINTS_MAX) return;
    const words = values.map((value) => {
      if (value === undefined) return "<undefined>";
      return typeof value === "string" ? value : formatValue(value);
    });
    this.observer.print(words.join(" ").slice(0, PRINT_LENGTH_MAX));
  }
}

function exhausted(what: string): HakoError {
  return new HakoError("RESOURCE_EXHAUSTED", `Cannot evaluate the policy: it needs ${what}`);
}

/** A policy that contradicts itself while it is evaluated. */
export function conflict(rule: string): HakoError {
  return new HakoError(
    "FAILED_PRECONDITION",
    `Cannot evaluate the policy: rule "${rule}" has several values`,
  );
}
