import type { AgentMethods } from "#agent/rpc/agent-service.ts";
import { HakoError } from "#base/error.ts";
import type { AgentPolicy, Denial } from "#policy/agent-policy.ts";
import { logger } from "#telemetry/log.ts";
import type { CallContext } from "#ttrpc/server-call.ts";
import { requestNames } from "./request-name.ts";

const log = logger("policy");

/** What a client of Kata gets to read of a process whose output it may not see: nothing, as if it had ended. */
const BLANK = { data: new Uint8Array(0) };
const BLANK_METHODS: ReadonlySet<string> = new Set(["readStdout", "readStderr"]);

type Handler = (request: object, context: CallContext) => unknown;

/** Stands before every call to the agent; without a policy it lets all of them pass. */
export class PolicyGate {
  #policy: AgentPolicy | undefined;
  #toInput: typeof import("./request-input.ts").requestInput | undefined;

  /** Takes the policy that `source` is. Throws INVALID_ARGUMENT, the policy before stays then. */
  async set(source: string): Promise<void> {
    const [{ AgentPolicy }, { requestInput }] = await Promise.all([
      import("#policy/agent-policy.ts"),
      import("./request-input.ts"),
    ]);
    const policy = AgentPolicy.parse(source);
    this.#toInput = requestInput;
    this.#policy = policy;
    if (policy.ignoresRefusals) log.warn("the policy refuses nothing: AllowRequestsFailingPolicy is true");
  }

  /** The service behind the gate, and the call that replaces the policy, which is gated itself. */
  guard(methods: AgentMethods): AgentMethods {
    const all: AgentMethods = {
      ...methods,
      setPolicy: async ({ policy }) => {
        await this.set(policy);
        log.info("policy set", { characters: policy.length });
        return {};
      },
    };
    const guarded = Object.entries(all).map(([name, handler]) => [
      name,
      this.#guardMethod(name, handler as Handler),
    ]);
    return Object.fromEntries(guarded) as AgentMethods;
  }

  #guardMethod(name: string, handler: Handler): Handler {
    const request = requestNames[name];
    if (request === undefined) throw new HakoError("INTERNAL", `Method "${name}" has no rule`);
    return (message, context) => {
      const denial = this.#check(request, message);
      if (!denial) return handler(message, context);
      if (BLANK_METHODS.has(name)) return BLANK;
      throw new HakoError("PERMISSION_DENIED", `${request} is blocked by policy: ${denial.reason}`);
    };
  }

  #check(request: string, message: object): Denial | undefined {
    if (!this.#policy || !this.#toInput) return undefined;
    const decision = this.#policy.decide(request, this.#toInput(request, message));
    const denial = decision.allowed ? decision.ignored : decision.denial;
    if (!denial) return undefined;
    const { failed, prints } = denial.explanation;
    const outcome = decision.allowed ? "call would be denied" : "call denied";
    log.warn(outcome, { request, reason: denial.reason, rules: failed.map(({ rule }) => rule) });
    log.debug("what the policy printed", { request, prints });
    return decision.allowed ? undefined : denial;
  }
}
