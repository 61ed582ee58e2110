import { HakoError } from "#base/error.ts";
import { applyPatch } from "./json-patch.ts";
import { type Explanation, Policy } from "./rego/engine.ts";
import { formatJson, RegoObject, type Value } from "./rego/value.ts";

/** The package that Kata's policies are in. */
export const POLICY_PACKAGE = "agent_policy";

const FAILING_POLICY_RULE = "AllowRequestsFailingPolicy";
/** What a policy may keep from call to call. */
const STATE_MAX = 1024 * 1024;

export type Decision =
  | {
      readonly allowed: true /** A refusal that the policy has asked to be passed over. */;
      readonly ignored?: Denial;
    }
  | { readonly allowed: false; readonly denial: Denial };

/** Why a call is refused. */
export interface Denial {
  /** One line: the rule, and the condition that failed. */
  readonly reason: string;
  readonly explanation: Explanation;
}

/**
 * A policy over the calls of an agent, with Kata's meaning: `data.agent_policy.<request>` is true or false, or an object
 * with `allowed` and `ops`, a JSON patch for the document below `data` in which the policy keeps its state (`pstate`). A
 * policy whose rule AllowRequestsFailingPolicy is true lets everything pass that its other rules do not.
 */
export class AgentPolicy {
  readonly #policy: Policy;
  readonly #ignoresRefusals: boolean;
  #state: RegoObject = RegoObject.of([["pstate", new RegoObject()]]);

  private constructor(policy: Policy) {
    this.#policy = policy;
    this.#ignoresRefusals =
      policy.evaluate(FAILING_POLICY_RULE, { input: new RegoObject(), data: this.#state }) === true;
  }

  /** Throws INVALID_ARGUMENT for text that is no policy of an agent. */
  static parse(source: string): AgentPolicy {
    const policy = Policy.parse(source);
    if (policy.packageName !== POLICY_PACKAGE) {
      throw new HakoError(
        "INVALID_ARGUMENT",
        `Cannot use the policy: its package is "${policy.packageName}", not "${POLICY_PACKAGE}"`,
      );
    }
    return new AgentPolicy(policy);
  }

  get ruleNames(): readonly string[] {
    return this.#policy.ruleNames;
  }

  /** True for a policy that refuses nothing, which is for debugging only. */
  get ignoresRefusals(): boolean {
    return this.#ignoresRefusals;
  }

  /** What the policy remembers, as JSON. */
  get state(): string {
    return formatJson(this.#state);
  }

  /** Decides on one call; `request` names its message. Never throws: what cannot be evaluated is refused. */
  decide(request: string, input: Value): Decision {
    let problem: string | undefined;
    try {
      const value = this.#policy.evaluate(request, { input, data: this.#state });
      const answer = readAnswer(value);
      if (answer.allowed) {
        this.#apply(answer.ops);
        return { allowed: true };
      }
      if (value === undefined && !this.ruleNames.includes(request)) problem = "the policy has no rule for it";
    } catch (error) {
      problem = HakoError.from(error).fullMessage;
      return { allowed: false, denial: { reason: problem, explanation: { failed: [], prints: [] } } };
    }
    const denial = this.#explain(request, input, problem);
    return this.#ignoresRefusals ? { allowed: true, ignored: denial } : { allowed: false, denial };
  }

  #apply(ops: Value | undefined): void {
    if (ops === undefined || ops === null) return;
    const state = applyPatch(this.#state, ops);
    if (!(state instanceof RegoObject) || formatJson(state).length > STATE_MAX) {
      throw new HakoError("RESOURCE_EXHAUSTED", "Cannot change the policy's state: it gets too large");
    }
    this.#state = state;
  }

  #explain(request: string, input: Value, problem: string | undefined): Denial {
    const explanation = this.#policy.explain(request, { input, data: this.#state });
    const last = explanation.failed.at(-1);
    const where = last && `rule "${last.rule}", line ${last.line}: ${last.text}`;
    return { reason: problem ?? where ?? `rule "${request}" does not allow it`, explanation };
  }
}

function readAnswer(value: Value | undefined): { allowed: boolean; ops?: Value } {
  if (value === undefined) return { allowed: false };
  if (typeof value === "boolean") return { allowed: value };
  const allowed = value instanceof RegoObject ? value.get("allowed") : undefined;
  if (!(value instanceof RegoObject) || typeof allowed !== "boolean") {
    throw new HakoError(
      "FAILED_PRECONDITION",
      "Cannot use the policy's answer: it is neither true nor false",
    );
  }
  const ops = value.get("ops");
  return ops === undefined ? { allowed } : { allowed, ops };
}
