import { afterAll, beforeAll, describe, expect } from "bun:test";
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { AgentServiceDefinition } from "#proto/agent.ts";
import { encodeRequest, encodeRoute } from "#ttrpc/envelope.ts";
import { encodeHeader, HEADER_LENGTH, MAX_MESSAGE_LENGTH, MESSAGE_TYPE } from "#ttrpc/frame.ts";
import { AgentProcess, agentProcessMissing, failure } from "../support/agent-process.ts";
import { TemporaryDirectory } from "../support/container.ts";
import { testIf } from "../support/skip.ts";

const missing = agentProcessMissing();
const agentTest = testIf(missing === undefined, missing ?? "");

let box: AgentProcess;
/** What an attacker would like to reach. */
let outside: TemporaryDirectory;
let shared: string;

beforeAll(async () => {
  if (missing !== undefined) return;
  box = await AgentProcess.start({ stderr: "ignore" });
  outside = new TemporaryDirectory();
  shared = join(box.runDirectory, "shared/containers");
  mkdirSync(shared, { recursive: true });
});

afterAll(async () => {
  await box?.[Symbol.asyncDispose]();
  outside?.[Symbol.dispose]();
});

/** Turns a directory into a link to somewhere else and back, as fast as it goes, until disposed. */
function flipper(place: string, target: string): Disposable {
  mkdirSync(place, { recursive: true });
  symlinkSync(target, `${place}.link`);
  const program = join(import.meta.dir, "../fixtures/swap-names.ts");
  const child = Bun.spawn([process.execPath, program, place, `${place}.link`], {
    stdio: ["ignore", "ignore", "ignore"],
  });
  return {
    [Symbol.dispose]() {
      child.kill("SIGKILL");
      for (const path of [place, `${place}.link`]) rmSync(path, { recursive: true, force: true });
    },
  };
}

const file = { fileMode: 0o100644, dirMode: 0o755, fileSize: 1n, data: Buffer.from("x") };

describe("paths", () => {
  agentTest("that lead out, by any spelling, are refused by every call that takes one", async () => {
    const bad = [
      "/etc/hako-escape",
      `${shared}/../../../../../../etc/hako-escape`,
      `${shared}/a/../../../../hako-escape`,
      `${shared}//a`,
      `${shared}/./a`,
      `${shared}/a\0b`,
      shared,
      "relative",
      "",
    ];
    for (const path of bad) {
      expect([path, (await failure(box.agent.copyFile({ path, ...file }))).code]).toEqual([
        path,
        "INVALID_ARGUMENT",
      ]);
      for (const driver of [
        "local",
        "ephemeral",
        "bind",
        "overlayfs",
        "virtio-fs",
        "watchable-bind",
        "blk",
      ]) {
        if (path === shared) continue;
        const storages = [{ driver, source: "/etc", mountPoint: path, options: ["lowerdir=/etc"] }];
        const refused = await failure(box.create({}, ({ request }) => Object.assign(request, { storages })));
        expect([driver, path, refused.code === "OK"]).toEqual([driver, path, false]);
      }
      const resized = await failure(box.agent.resizeVolume({ volumeGuestPath: path, size: 1n }));
      expect(resized.code).not.toBe("OK");
    }
    expect([existsSync("/etc/hako-escape"), box.mounts, box.cgroups]).toEqual([false, [], []]);
  });

  agentTest("of cgroups stay below the agent's own", async () => {
    const bad = [
      "/../../x",
      "../x",
      "a/../../x",
      "cgroup.procs",
      "/a/cgroup.subtree_control",
      "a\nb",
      "a\0b",
      "..:..:..",
      "x".repeat(300),
      Array(40).fill("d").join("/"),
    ];
    for (const CgroupsPath of bad) {
      const refused = box.create({}, ({ spec }) => Object.assign(spec.Linux ?? {}, { CgroupsPath }));
      expect([CgroupsPath, (await failure(refused)).code]).toEqual([CgroupsPath, "INVALID_ARGUMENT"]);
    }
    expect(readdirSync(box.cgroupDirectory).filter((name) => !name.includes("."))).toEqual([]);
  });

  agentTest("of a process may hold no NUL, in any word", async () => {
    for (const change of [
      { Env: ["A=b\0c"] },
      { Args: ["sh", "a\0b"] },
      { Cwd: "/a\0b" },
      { Args: ["a\0"] },
    ]) {
      const refused = box.create({}, ({ spec }) => Object.assign(spec.Process ?? {}, change));
      expect((await failure(refused)).code).toBe("INVALID_ARGUMENT");
    }
    expect(box.mounts).toEqual([]);
  });
});

describe("a neighbour that swaps directories for links", () => {
  agentTest(
    "gets no file copied to somewhere else",
    async () => {
      using _ = flipper(join(shared, "race"), outside.path);
      const codes = new Set<string>();
      // Until both have happened: the directory was there, and the link was.
      for (let round = 0; round < 300 || codes.size < 2; round++)
        codes.add(
          (await failure(box.agent.copyFile({ path: join(shared, `race/f${round % 300}`), ...file }))).code,
        );
      expect(readdirSync(outside.path)).toEqual([]);
    },
    60_000,
  );

  agentTest(
    "gets nothing mounted somewhere else",
    async () => {
      const place = join(box.runDirectory, "volume/race");
      using _ = flipper(place, outside.path);
      for (let round = 0; round < 60; round++) {
        const storages = [{ driver: "ephemeral", fstype: "tmpfs", mountPoint: `${place}/m${round}` }];
        await failure(box.create({}, ({ request }) => Object.assign(request, { storages })));
      }
      expect(readdirSync(outside.path)).toEqual([]);
      expect(box.mounts.filter((path) => path.startsWith(outside.path))).toEqual([]);
    },
    60_000,
  );

  agentTest("a link in the place of a source is not followed", async () => {
    const source = join(box.runDirectory, "source");
    mkdirSync(join(source, "real"), { recursive: true });
    symlinkSync("/etc", join(source, "link"));
    for (const driver of ["bind", "watchable-bind"]) {
      const storages = [
        { driver, source: join(source, "link"), mountPoint: join(box.runDirectory, "volume/linked") },
      ];
      const refused = await failure(box.create({}, ({ request }) => Object.assign(request, { storages })));
      expect(refused.message).toContain("ELOOP");
    }
    renameSync(join(source, "real"), join(source, "moved"));
  });
});

describe("messages", () => {
  agentTest("beyond the limit are refused, and cost no memory", async () => {
    const { name } = AgentServiceDefinition.methods.copyFile;
    const route = encodeRoute(AgentServiceDefinition.fullName, name);
    const body = encodeRequest(route, new Uint8Array(MAX_MESSAGE_LENGTH), 0n, new Map());
    const header = Buffer.alloc(HEADER_LENGTH);
    const closed = Promise.withResolvers<void>();
    let answer = Buffer.alloc(0);
    const socket = await Bun.connect({
      unix: box.socket,
      socket: {
        data(_, chunk) {
          answer = Buffer.concat([answer, chunk]);
          if (answer.length >= HEADER_LENGTH) closed.resolve();
        },
        close: () => closed.resolve(),
      },
    });
    encodeHeader(header, 0, 1, MESSAGE_TYPE.request, 0, body.length);
    socket.write(header);
    for (let offset = 0; offset < body.length; ) {
      const taken = socket.write(body.subarray(offset));
      offset += taken;
      if (taken === 0) await Bun.sleep(1);
    }
    await closed.promise;
    socket.end();
    // A frame that announces four gigabytes and never comes.
    encodeHeader(header, 0, 1, MESSAGE_TYPE.request, 0, 0xffff_ffff);
    const silent = await Bun.connect({ unix: box.socket, socket: { data: () => {} } });
    silent.write(header);
    expect((await box.client.health.check({})).status).toBe(1);
    silent.end();
  });

  agentTest("of more than any list may hold are refused", async () => {
    const many = Array.from({ length: 5000 }, (_, index) => `o${index}`);
    const cases = [
      failure(
        box.create({}, ({ spec }) =>
          Object.assign(spec, { Mounts: many.map((name) => ({ destination: `/${name}` })) }),
        ),
      ),
      failure(
        box.create({}, ({ spec }) =>
          Object.assign(spec.Linux ?? {}, { MaskedPaths: many.map((name) => `/${name}`) }),
        ),
      ),
      failure(
        box.create({}, ({ request }) =>
          Object.assign(request, { devices: many.map((id) => ({ id, type: "blk" })) }),
        ),
      ),
      failure(
        box.create({}, ({ request }) =>
          Object.assign(request, { storages: many.map((name) => ({ driver: "local", mountPoint: name })) }),
        ),
      ),
    ];
    for (const { code } of await Promise.all(cases))
      expect(["INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"]).toContain(code);
    expect([box.mounts, box.cgroups]).toEqual([[], []]);
  });
});
