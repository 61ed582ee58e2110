import { HakoError } from "#base/error.ts";
import type { Arguments } from "#cli/arguments.ts";
import { print, printJson } from "#cli/output.ts";
import { AgentPolicy } from "#policy/agent-policy.ts";
import { readPolicy } from "#policy/default-policy.ts";
import { fromJson } from "#policy/rego/value.ts";
import { readJsonFile } from "./json-file.ts";

const EXIT_DENIED = 1;

/** Reads a policy as an agent would and, given a request, says what the agent would answer. */
export function checkPolicy(input: Arguments): number {
  const [, name = ""] = input.positionals;
  const policy = AgentPolicy.parse(readPolicy(name));
  const request = input.value("request");
  if (request === undefined) return describe(policy, input.flag("json"));
  const path = input.value("input");
  const decision = policy.decide(request, fromJson(path === undefined ? {} : readJsonFile(path)));
  const denial = decision.allowed ? decision.ignored : decision.denial;
  if (input.flag("json")) {
    printJson({
      request,
      allowed: decision.allowed,
      ...(denial && { denial }),
      state: JSON.parse(policy.state),
    });
  } else {
    print(`${request}: ${decision.allowed ? "allowed" : "denied"}${denial ? `: ${denial.reason}` : ""}`);
    for (const { rule, line, text } of denial?.explanation.failed ?? [])
      print(`  ${rule}, line ${line}: ${text}`);
    for (const line of denial?.explanation.prints ?? []) print(`  print: ${line}`);
  }
  return decision.allowed ? 0 : EXIT_DENIED;
}

function describe(policy: AgentPolicy, json: boolean): number {
  const { ruleNames, ignoresRefusals } = policy;
  const requests = ruleNames.filter((name) => /^[A-Z]\w*(Request|Config)$/.test(name)).toSorted();
  if (json) printJson({ requests, rules: ruleNames.length, ignoresRefusals });
  else {
    print(`The policy can be read: ${ruleNames.length} rules, ${requests.length} of them for requests.`);
    if (ignoresRefusals) print("It refuses nothing: AllowRequestsFailingPolicy is true.");
  }
  if (requests.length > 0) return 0;
  throw new HakoError(
    "FAILED_PRECONDITION",
    "The policy has no rule for any request: an agent would refuse every call",
  );
}
