import { HakoError } from "#base/error.ts";
import { DEFAULT_LIMITS, type EvaluationLimits } from "./machine.ts";
import { parseModule } from "./parser.ts";
import { Program } from "./program.ts";
import { RegoObject, type Value } from "./value.ts";

export interface Question {
  readonly input?: Value;
  /** What is below `data` beside the policy's own package. */
  readonly data?: RegoObject;
  readonly limits?: EvaluationLimits;
}

/** Why a rule did not hold, as well as that can be said. */
export interface Explanation {
  /** The conditions that failed, from the rule that was asked down to the one that decided. */
  readonly failed: readonly { readonly rule: string; readonly line: number; readonly text: string }[];
  readonly prints: readonly string[];
}

/** Rules within rules that an explanation follows. */
const EXPLANATION_DEPTH = 12;

/** A policy in Rego that can be asked for the values of its rules. */
export class Policy {
  readonly #program: Program;

  private constructor(program: Program) {
    this.#program = program;
  }

  /** Throws INVALID_ARGUMENT for text that is no policy, naming the line. */
  static parse(source: string): Policy {
    return guarded(() => new Policy(new Program(parseModule(source))));
  }

  /** `agent_policy` of `package agent_policy`. */
  get packageName(): string {
    return this.#program.packagePath.join(".");
  }

  get ruleNames(): readonly string[] {
    return this.#program.ruleNames;
  }

  /** Functions have no value of their own. */
  isFunction(rule: string): boolean {
    return this.#program.findFunction(rule) !== undefined;
  }

  /** Steps that the last question took. */
  get steps(): number {
    return this.#program.machine.steps;
  }

  /**
   * The value of a rule, undefined when nothing makes it true or there is no such rule. Throws RESOURCE_EXHAUSTED
   * beyond the limits, FAILED_PRECONDITION when rules contradict each other.
   */
  evaluate(rule: string, question: Question = {}): Value | undefined {
    return this.#ask(rule, question);
  }

  /** Evaluates once more, with its eyes open. */
  explain(rule: string, question: Question = {}): Explanation {
    const furthest = new Map<number, number>();
    const prints: string[] = [];
    try {
      this.#ask(rule, question, {
        reached(clause, index) {
          if (index >= (furthest.get(clause) ?? 0)) furthest.set(clause, index);
        },
        print: (line) => prints.push(line),
      });
    } catch (error) {
      prints.push(HakoError.from(error).message);
    }
    return { failed: this.#failures(rule, furthest), prints };
  }

  #ask(
    rule: string,
    { input, data, limits }: Question,
    observer?: Parameters<Program["machine"]["begin"]>[3],
  ) {
    const program = this.#program;
    const found = program.findRule(rule);
    if (!found) return undefined;
    program.machine.begin(input, data ?? new RegoObject(), limits ?? DEFAULT_LIMITS, observer);
    return guarded(() => program.valueOf(found));
  }

  /** Of each rule the clause that came furthest, and its last condition. */
  #failures(rule: string, furthest: ReadonlyMap<number, number>): Explanation["failed"] {
    const { landmarks } = this.#program;
    const failed: { rule: string; line: number; text: string }[] = [];
    const seen = new Set<string>();
    const queue = [rule];
    for (
      let name = queue.shift();
      name !== undefined && failed.length < EXPLANATION_DEPTH;
      name = queue.shift()
    ) {
      if (seen.has(name)) continue;
      seen.add(name);
      let best: { at: number; index: number; share: number } | undefined;
      landmarks.forEach((conditions, at) => {
        const index = furthest.get(at);
        if (index === undefined || !conditions.some((landmark) => landmark?.rule === name)) return;
        const share = index / conditions.length;
        if (!best || share > best.share) best = { at, index, share };
      });
      const landmark = best && landmarks[best.at]?.[best.index];
      if (!landmark) continue;
      failed.push({ rule: name, line: landmark.literal.line, text: landmark.literal.text });
      queue.unshift(...landmark.asks);
    }
    return failed;
  }
}

/** The stack of a policy's evaluation is ours: running out of it is the policy's fault, not the end of the agent. */
function guarded<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (error instanceof RangeError) {
      throw new HakoError("RESOURCE_EXHAUSTED", "Cannot evaluate the policy: it is nested too deeply", {
        cause: error,
      });
    }
    throw error;
  }
}
