/** Sealed secrets in the environment and in volumes of real containers. */
import { afterAll, expect } from "bun:test";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { AgentProcess, agentProcessMissing, failure } from "../support/agent-process.ts";
import { makeHubDirectory, vault } from "../support/sealed-secret.ts";
import { testIf } from "../support/skip.ts";

const missing = agentProcessMissing();
const agentTest = testIf(missing === undefined, missing ?? "");
const base = mkdtempSync(join(tmpdir(), "hako-secret-"));
afterAll(() => rmSync(base, { recursive: true, force: true }));

agentTest("are opened for the container alone", async () => {
  const { configFile, seal } = await makeHubDirectory(base);
  const sealed = await seal(vault("kbs:///default/secret/password"));
  await using agent = await AgentProcess.start({ args: ["--data-hub", configFile] });

  // A volume as kubelet lays it out, with links that lead through "..data", and one that leads out.
  const volume = join(agent.runDirectory, "shared/containers/c1-0123456789abcdef-secret");
  mkdirSync(join(volume, "..2026"), { recursive: true });
  writeFileSync(join(volume, "..2026/token"), sealed, { mode: 0o640 });
  writeFileSync(join(volume, "..2026/plain"), "plain text");
  symlinkSync("..2026", join(volume, "..data"));
  symlinkSync("..data/token", join(volume, "token"));
  symlinkSync("..data/plain", join(volume, "plain"));
  symlinkSync("/etc/hostname", join(volume, "escape"));
  const ordinary = join(agent.runDirectory, "shared/containers/c1-0123456789abcdef-config");
  mkdirSync(ordinary);
  writeFileSync(join(ordinary, "key"), "sealed.jpg");

  const bind = (source: string, destination: string) => ({
    destination,
    source,
    type: "bind",
    UIDMappings: [],
    GIDMappings: [],
    options: ["rbind", "ro"],
  });
  const script =
    'echo "$SECRET|$OTHER"; cd /secret; for f in *; do echo "$f:$(cat $f)"; done; stat -c %a token; cat /config/key';
  const id = await agent.create(
    { command: ["sh", "-c", script], env: [`SECRET=${sealed}`, "OTHER=sealed.jpg"] },
    ({ spec }) => spec.Mounts.push(bind(volume, "/secret"), bind(ordinary, "/config")),
  );
  await agent.agent.startContainer({ containerId: id });
  const { stdout, code } = await agent.collect(id);
  expect(code).toBe(0);
  expect(stdout).toBe("open sesame|sealed.jpg\nplain:plain text\ntoken:open sesame\n640\nsealed.jpg");
  // What the host shares is as it was.
  expect(readFileSync(join(volume, "..2026/token"), "utf8")).toBe(sealed);
  await agent.agent.removeContainer({ containerId: id });
  expect(existsSync(join(agent.runDirectory, id))).toBe(false);
});

agentTest("that cannot be opened keep the container from being made", async () => {
  const { configFile, seal } = await makeHubDirectory(base);
  await using agent = await AgentProcess.start({ args: ["--data-hub", configFile] });
  const nothing = await seal(vault("kbs:///default/secret/nothing"));
  const { message } = await failure(agent.create({ id: "a", env: [`SECRET=${nothing}`] }));
  expect(message).toContain("Cannot unseal a secret by the confidential data hub in this process");
  const binary = await seal(vault("kbs:///default/secret/binary"));
  expect((await failure(agent.create({ id: "b", env: [`SECRET=${binary}`] }))).message).toContain(
    "is no text",
  );
  expect(agent.cgroups).toEqual([]);
});

agentTest("without a hub are an error that says so", async () => {
  await using agent = await AgentProcess.start({ args: ["--data-hub", "none"] });
  const { message } = await failure(agent.create({ env: ["SECRET=sealed.a.b.c"] }));
  expect(message).toContain("the confidential data hub is missing, it is switched off");
});
