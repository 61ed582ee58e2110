/** Policies before real calls to an agent, which runs real containers. */
import { afterAll, beforeAll, describe, expect } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { AgentProcess, agentProcessMissing, failure } from "../support/agent-process.ts";
import { testIf } from "../support/skip.ts";

const missing = agentProcessMissing();
const agentTest = testIf(missing === undefined, missing ?? "");
const directory = mkdtempSync(join(tmpdir(), "hako-policy-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

function policyFile(name: string, text: string): string {
  const path = join(directory, `${name}.rego`);
  writeFileSync(path, text);
  return path;
}

describe("a policy that allows some commands in one container", () => {
  let agent: AgentProcess;
  const policy = `package agent_policy
import future.keywords.in

default CreateContainerRequest := false
default ExecProcessRequest := false
default SetPolicyRequest := false
default DestroySandboxRequest := true
default StartContainerRequest := true
default WaitProcessRequest := true
default RemoveContainerRequest := true
default ReadStreamRequest := false

CreateContainerRequest := {"allowed": true, "ops": [op]} {
  not data.pstate.container
  op := {"op": "add", "path": "/pstate/container", "value": input.container_id}
  every_mount_allowed
}

every_mount_allowed {
  not forbidden_mount
}

forbidden_mount {
  some mount in input.OCI.Mounts
  mount.type_ == "bind"
}

ExecProcessRequest {
  input.container_id == data.pstate.container
  some command in [["true"], ["sh", "-c", "exit 3"]]
  command == input.process.Args
}
`;

  beforeAll(async () => {
    if (missing === undefined)
      agent = await AgentProcess.start({ args: ["--policy", policyFile("some", policy)] });
  });
  afterAll(async () => await agent?.[Symbol.asyncDispose]());

  const exec = (containerId: string, execId: string, ...Args: string[]) =>
    agent.agent.execProcess({
      containerId,
      execId,
      process: { Args, Cwd: "/", Env: ["PATH=/bin"], User: {} },
    });

  agentTest("answers what it allows and does nothing of what it does not", async () => {
    const id = await agent.run("echo secret; sleep 1000", { id: "first" });
    expect(await failure(agent.create({ id: "second" }))).toEqual({
      code: "PERMISSION_DENIED",
      message:
        'CreateContainerRequest is blocked by policy: rule "CreateContainerRequest", line 14: not data.pstate.container',
    });
    expect(agent.cgroups).toEqual(["first"]);
    expect(agent.mounts.filter((path) => path.includes("second"))).toEqual([]);

    await exec(id, "allowed", "sh", "-c", "exit 3");
    expect(await agent.agent.waitProcess({ containerId: id, execId: "allowed" })).toMatchObject({
      status: 3,
    });
    const denied = await failure(exec(id, "denied", "sh", "-c", "echo x > /tmp/x"));
    expect(denied.code).toBe("PERMISSION_DENIED");
    expect(denied.message).toContain("ExecProcessRequest is blocked by policy");
    expect((await failure(agent.agent.waitProcess({ containerId: id, execId: "denied" }))).code).toBe(
      "NOT_FOUND",
    );

    // What a call without a rule gets, and what a reader of output that is not for him.
    expect((await failure(agent.agent.pauseContainer({ containerId: id }))).code).toBe("PERMISSION_DENIED");
    expect((await agent.readAll(id, "stdout")).length).toBe(0);
    expect((await failure(agent.agent.setPolicy({ policy: "package agent_policy" }))).code).toBe(
      "PERMISSION_DENIED",
    );
    await agent.agent.removeContainer({ containerId: id });
  });

  agentTest("health is not asked for permission", async () => {
    expect(await agent.client.health.check({})).toMatchObject({ status: 1 });
  });
});

describe("a policy that is to be set", () => {
  agentTest("is set once, holds from then on, and keeps the one before when it is wrong", async () => {
    await using agent = await AgentProcess.start({ args: ["--policy", "allow-set-policy"] });
    expect((await failure(agent.create({}))).code).toBe("PERMISSION_DENIED");
    const wrong = await failure(agent.agent.setPolicy({ policy: "package agent_policy\nX {" }));
    expect(wrong.code).toBe("INVALID_ARGUMENT");
    expect(wrong.message).toContain("line 2");
    expect((await failure(agent.create({}))).code).toBe("PERMISSION_DENIED");
    const policy =
      "package agent_policy\nAllowRequestsFailingPolicy := true\ndefault PauseContainerRequest := false";
    await agent.agent.setPolicy({ policy });
    const id = await agent.run("sleep 1000");
    await agent.agent.pauseContainer({ containerId: id });
    await agent.agent.removeContainer({ containerId: id });
  });

  agentTest("without any policy everything is allowed, and one can be set", async () => {
    await using agent = await AgentProcess.start();
    const id = await agent.run("sleep 1000");
    await agent.agent.setPolicy({
      policy:
        "package agent_policy\ndefault DestroySandboxRequest := true\ndefault RemoveContainerRequest := true",
    });
    expect((await failure(agent.agent.pauseContainer({ containerId: id }))).code).toBe("PERMISSION_DENIED");
    await agent.agent.removeContainer({ containerId: id });
  });
});
