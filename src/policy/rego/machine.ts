import { HakoError } from "#base/error.ts";
import { effort, formatValue, RegoObject, type Value } from "./value.ts";

/** What one question to a policy may cost; the policy or the request may be hostile. */
export interface EvaluationLimits {
  /** Conditions tried, elements looked at, calls made. */
  readonly steps: number;
  /** Bytes made, as far as they can be told. */
  readonly size: number;
  /** For what no step counts; a busy machine is given the benefit of it. */
  readonly timeMs: number;
  /** Rules within rules. */
  readonly depth: number;
}

export const DEFAULT_LIMITS: EvaluationLimits = {
  steps: 2_000_000,
  size: 64 * 1024 * 1024,
  depth: 100,
  timeMs: 5000,
};

/** Bytes that an element of an array, and a member of an object or a set, take at least. */
const ELEMENT_SIZE = 8;
const MEMBER_SIZE = 128;
/** How often the clock is looked at, in steps. */
const CLOCK_STEPS = 4096;

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
  #deadline = 0;
  #nextLook = 0;

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
    this.#deadline = performance.now() + limits.timeMs;
    this.#nextLook = CLOCK_STEPS;
    effort.count = 0;
  }

  /** Steps taken by the evaluation so far. */
  get steps(): number {
    return this.#steps;
  }

  /** Counts work, with what comparisons have done since. Throws RESOURCE_EXHAUSTED. */
  step(count = 1): void {
    this.#steps += count + effort.count;
    effort.count = 0;
    if (this.#steps > this.#limits.steps) throw exhausted(`more than ${this.#limits.steps} steps`);
    if (this.#steps < this.#nextLook) return;
    this.#nextLook = this.#steps + CLOCK_STEPS;
    if (performance.now() > this.#deadline) throw exhausted(`more than ${this.#limits.timeMs} ms`);
  }

  /** Counts bytes that are made, as the characters of a string. Throws RESOURCE_EXHAUSTED. */
  charge(size: number): void {
    this.#size += size + 1;
    if (this.#size > this.#limits.size) throw exhausted(`more than ${this.#limits.size} bytes`);
  }

  /** Elements of an array. */
  chargeElements(count: number): void {
    this.charge(count * ELEMENT_SIZE);
  }

  /** Members of an object or a set. */
  chargeMembers(count: number): void {
    this.charge(count * MEMBER_SIZE);
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
