import { chmodSync, mkdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { EXIT_CODE, encodeProgram, PAUSE_CODE } from "#base/static-program.ts";
import type { ContainerSpec } from "#runtime/container.ts";
import type { Sandbox } from "#runtime/sandbox.ts";

const SIGKILL = 9;
const PROGRAMS = [
  ["true", EXIT_CODE],
  ["pause", PAUSE_CODE],
] as const;
const FOLDERS = ["proc", "sys", "dev", "etc", "tmp", "run"];

/**
 * Runs a container from beginning to end in a sandbox that becomes a template, and a second process in it: kernel, agent
 * and launcher have then done once what every clone will do, and their code is in memory and compiled.
 */
export async function practise(sandbox: Sandbox, stateDir: string, signal?: AbortSignal): Promise<void> {
  const container = await sandbox.addContainer(practiceContainer(makeRootfs(stateDir)), signal);
  await container.create(signal);
  await container.start(signal);
  const process = await container.exec({
    id: "practice-exec",
    args: ["/true"],
    env: [],
    terminal: false,
    stdin: false,
  });
  await process.readStdout(1, signal);
  await process.wait(signal);
  await container.stats(signal);
  await container.kill(SIGKILL, signal);
  await container.process.readStdout(1, signal);
  await container.wait(signal);
  await container.remove(signal);
}

function practiceContainer(rootfs: string): ContainerSpec {
  return {
    id: "practice",
    hostname: "practice",
    image: `rootfs:${rootfs}`,
    process: {
      env: [],
      command: ["/pause"],
      terminal: false,
      capAdd: [],
      capDrop: [],
      noNewPrivileges: false,
    },
    volumes: [],
    readOnlyRoot: false,
    seccomp: { kind: "default" },
    stdin: false,
  };
}

/** Written once: its image is then in the cache for every further template. */
function makeRootfs(stateDir: string): string {
  const dir = join(stateDir, "practice");
  for (const folder of FOLDERS) mkdirSync(join(dir, folder), { recursive: true, mode: 0o755 });
  for (const [name, code] of PROGRAMS) {
    const path = join(dir, name);
    const program = encodeProgram(code);
    if (statSync(path, { throwIfNoEntry: false })?.size === program.length) continue;
    writeFileSync(path, program);
    chmodSync(path, 0o755);
  }
  return dir;
}
