import { describe, expect, test } from "bun:test";
import { requestNames } from "#agent/policy/request-name.ts";
import { AgentPolicy } from "#policy/agent-policy.ts";
import { POLICY_NAMES, readPolicy } from "#policy/default-policy.ts";
import { fromJson } from "#policy/rego/value.ts";

const requests = [...new Set(Object.values(requestNames))];

function decide(policy: AgentPolicy, request: string, input: unknown = {}) {
  const decision = policy.decide(request, fromJson(input));
  return decision.allowed ? "allowed" : decision.denial.reason;
}

describe("policies inside the executable", () => {
  const allowed: Record<(typeof POLICY_NAMES)[number], (request: string) => boolean> = {
    "allow-all": () => true,
    "allow-all-except-exec": (request) => request !== "ExecProcessRequest",
    "allow-set-policy": (request) => request === "SetPolicyRequest",
    "deny-all": () => false,
  };
  for (const name of POLICY_NAMES) {
    test(name, () => {
      const policy = AgentPolicy.parse(readPolicy(name));
      const passing = requests.filter((request) => decide(policy, request) === "allowed");
      expect(passing).toEqual(requests.filter(allowed[name]));
      expect(policy.ruleNames.toSorted()).toEqual(requests.toSorted());
    });
  }

  test("a file that is not there is an error that says what to do", () => {
    expect(() => readPolicy("/nowhere/p.rego")).toThrow(
      'Cannot read policy "/nowhere/p.rego": give the path of a file',
    );
  });
});

test("a policy of another package is refused", () => {
  expect(() => AgentPolicy.parse("package other\nx := true")).toThrow(
    'its package is "other", not "agent_policy"',
  );
});

test("a call without a rule is refused, and so is an answer that is none", () => {
  const policy = AgentPolicy.parse('package agent_policy\nX := "yes"\nY := {"ops": []}');
  expect(decide(policy, "Z")).toBe("the policy has no rule for it");
  expect(decide(policy, "X")).toContain("neither true nor false");
  expect(decide(policy, "Y")).toContain("neither true nor false");
});

test("AllowRequestsFailingPolicy lets pass what is refused, and says so", () => {
  const policy = AgentPolicy.parse(
    "package agent_policy\ndefault A := false\nAllowRequestsFailingPolicy := true",
  );
  expect(policy.ignoresRefusals).toBe(true);
  expect(policy.decide("A", null)).toMatchObject({ allowed: true, ignored: {} });
  expect(policy.decide("B", null)).toMatchObject({
    allowed: true,
    ignored: { reason: "the policy has no rule for it" },
  });
});

test("what a policy contradicts itself about is refused", () => {
  const policy = AgentPolicy.parse(`package agent_policy
X := true { input.a }
X := false { input.b }
Y { Z }
Z { Y }`);
  expect(decide(policy, "X", { a: 1 })).toBe("allowed");
  expect(decide(policy, "X", { a: 1, b: 1 })).toContain("several values");
  expect(decide(policy, "Y")).toContain("refers to itself");
});

describe("state", () => {
  const source = `package agent_policy
import future.keywords.in
default CreateContainerRequest := false
CreateContainerRequest := {"allowed": true, "ops": ops} {
  first(input.name)
  ops := [{"op": "add", "path": "/pstate/name", "value": input.name}]
}
CreateContainerRequest := {"allowed": true} { data.pstate.name == input.name }
first(name) { not data.pstate.name }
Wrong := {"allowed": true, "ops": [{"op": "remove", "path": "/pstate/nothing"}]}
Refused := {"allowed": false, "ops": [{"op": "add", "path": "/pstate/x", "value": 1}]}
Grow := {"allowed": true, "ops": [{"op": "add", "path": "/pstate/x", "value": sprintf("%0999d%0999d", [1, 2])}]}`;

  test("is changed by calls that are allowed and seen by later ones", () => {
    const policy = AgentPolicy.parse(source);
    expect(decide(policy, "CreateContainerRequest", { name: "a" })).toBe("allowed");
    expect(policy.state).toBe('{"pstate":{"name":"a"}}');
    expect(decide(policy, "CreateContainerRequest", { name: "a" })).toBe("allowed");
    expect(decide(policy, "CreateContainerRequest", { name: "b" })).toContain(
      'rule "first", line 9: not data.pstate.name',
    );
  });

  test("is not changed by refusals nor by operations that fail", () => {
    const policy = AgentPolicy.parse(source);
    expect(decide(policy, "Wrong")).toContain('there is no member "nothing"');
    expect(decide(policy, "Refused")).not.toBe("allowed");
    expect(policy.state).toBe('{"pstate":{}}');
    expect(decide(policy, "Grow")).toBe("allowed");
  });
});

test("a refusal names the condition that failed, as deep as it can be followed", () => {
  const policy = AgentPolicy.parse(`package agent_policy
default ExecProcessRequest := false
ExecProcessRequest {
  print("command", input.process.Args)
  allowed_command(input.process.Args)
}
allowed_command(args) {
  count(args) == 1
  args[0] == "ls"
}`);
  const decision = policy.decide("ExecProcessRequest", fromJson({ process: { Args: ["sh"] } }));
  expect(decision).toMatchObject({
    allowed: false,
    denial: {
      reason: 'rule "allowed_command", line 9: args[0] == "ls"',
      explanation: {
        failed: [
          { rule: "ExecProcessRequest", line: 5 },
          { rule: "allowed_command", line: 9 },
        ],
        prints: ['command ["sh"]'],
      },
    },
  });
});
