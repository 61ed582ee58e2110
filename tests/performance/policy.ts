/** What one decision of a policy costs: reading the policy, ExecProcess, CreateContainer. Prints JSON. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { requestInput } from "#agent/policy/request-input.ts";
import { toProtoSpec } from "#agent-client/spec.ts";
import { buildSpec } from "#oci/spec-builder.ts";
import { AgentPolicy } from "#policy/agent-policy.ts";
import { readPolicy } from "#policy/default-policy.ts";
import { generateFromManifest } from "#policy/generate/generate.ts";
import { CreateContainerRequest, ExecProcessRequest } from "#proto/agent.ts";
import { printResult, summarize } from "../support/measure.ts";

const ROUNDS = 1000;
const manifest = readFileSync(join(import.meta.dir, "../fixtures/policy/pod.yaml"), "utf8");
const image = { Entrypoint: ["/web"], Env: ["IMAGE=yes"] };

/** Milliseconds of each round. */
function time(work: () => void): number[] {
  return Array.from({ length: ROUNDS }, () => {
    const started = performance.now();
    work();
    return performance.now() - started;
  });
}

const id = "c1";
const spec = toProtoSpec(
  buildSpec(image, {
    id,
    hostname: "h",
    rootPath: `/run/kata-containers/${id}/rootfs`,
    readOnlyRoot: false,
    mounts: [],
    env: [],
    command: ["sh", "-c", "cp /config/x /scratch/low"],
    terminal: false,
    capAdd: [],
    capDrop: [],
    noNewPrivileges: false,
  }),
);
const create = CreateContainerRequest.fromPartial({ containerId: id, OCI: spec });
const exec = ExecProcessRequest.fromPartial({
  containerId: id,
  execId: "e",
  ...(spec.Process && { process: spec.Process }),
});

function decisions(policy: AgentPolicy) {
  return {
    exec: summarize(
      time(() => policy.decide("ExecProcessRequest", requestInput("ExecProcessRequest", exec))),
    ),
    create: summarize(
      time(() => policy.decide("CreateContainerRequest", requestInput("CreateContainerRequest", create))),
    ),
  };
}

const text = generateFromManifest(manifest, () => image, { allowOutput: false, allowExec: true });
const allowed = AgentPolicy.parse(text);
printResult("policy", {
  unit: "ms",
  rounds: ROUNDS,
  parse: summarize(time(() => AgentPolicy.parse(text)).slice(0, 200)),
  allowAll: decisions(AgentPolicy.parse(readPolicy("allow-all"))),
  /** Refusals are evaluated twice: the second time to say why. */
  generated: decisions(allowed),
});
