/** What every runtime handler does, with a virtual machine or without. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { HakoError } from "#base/error.ts";
import type { Container, ContainerSpec } from "#runtime/container.ts";
import type { RuntimeHandler } from "#runtime/handler.ts";
import type { Process } from "#runtime/process.ts";
import type { Sandbox, SandboxSpec } from "#runtime/sandbox.ts";
import type { StateStore } from "#runtime/state-store.ts";

export interface RuntimeHandlerFixture extends AsyncDisposable {
  readonly handler: RuntimeHandler;
  readonly store: StateStore;
  /** An image of busybox. */
  readonly image: string;
  /** What the handler wants to be told of every sandbox. */
  readonly sandbox: Partial<SandboxSpec>;
  /** Ends what the sandbox's containers run in, as a fault would. */
  breakSandbox(sandbox: Sandbox): Promise<void>;
  /** What must not be there when no sandbox is. */
  leftovers(): string[];
}

const TIMEOUT_MS = 180_000;
const SIGTERM = 15;
const SIGKILL = 9;

async function codeOf(call: Promise<unknown>): Promise<string> {
  try {
    await call;
    return "OK";
  } catch (error) {
    return error instanceof HakoError ? error.code : String(error);
  }
}

async function readAll(read: (max: number) => Promise<Uint8Array>): Promise<string> {
  const chunks: Uint8Array[] = [];
  for (let data = await read(65_536); data.length > 0; data = await read(65_536)) chunks.push(data);
  return Buffer.concat(chunks).toString();
}

async function readUntil(process: Process, text: string): Promise<string> {
  let seen = "";
  while (!seen.includes(text)) {
    const data = await process.readStdout(65_536);
    if (data.length === 0) throw new Error(`the output ended: ${seen}`);
    seen += Buffer.from(data).toString();
  }
  return seen;
}

export function runtimeHandlerContract(name: string, open: () => Promise<RuntimeHandlerFixture>): void {
  describe(`${name}: the contract of runtime handlers`, () => {
    let fixture: RuntimeHandlerFixture;
    let sandboxes = 0;

    const createSandbox = (changes: Partial<SandboxSpec> = {}) =>
      fixture.handler.createSandbox({
        id: `sandbox-${++sandboxes}`,
        name: `name-${sandboxes}`,
        hostname: "contract",
        network: "none",
        detached: false,
        autoRemove: false,
        timing: false,
        ...fixture.sandbox,
        ...changes,
      });
    const containerSpec = (
      id: string,
      command: string[],
      changes: Partial<ContainerSpec> = {},
    ): ContainerSpec => ({
      id,
      hostname: "contract",
      image: fixture.image,
      process: {
        env: ["KEY=value"],
        command,
        terminal: false,
        capAdd: [],
        capDrop: [],
        noNewPrivileges: false,
      },
      volumes: [],
      readOnlyRoot: false,
      seccomp: { kind: "default" },
      stdin: false,
      ...changes,
    });
    const statusOf = async (sandbox: Sandbox, id: string) =>
      (await fixture.store.find(sandbox.id))?.containers.find((container) => container.id === id)?.status;

    beforeAll(async () => {
      fixture = await open();
    }, TIMEOUT_MS);
    afterAll(async () => await fixture[Symbol.asyncDispose](), TIMEOUT_MS);

    test("claims id and name; nothing is left of a sandbox that never started", async () => {
      const sandbox = await createSandbox({ name: "claimed" });
      expect(await fixture.store.find(sandbox.id)).toMatchObject({
        name: "claimed",
        handler: fixture.handler.name,
        status: "creating",
      });
      expect(await codeOf(createSandbox({ name: "claimed" }))).toBe("ALREADY_EXISTS");
      const container = await sandbox.addContainer(containerSpec("c", ["true"]));
      expect(await codeOf(sandbox.addContainer(containerSpec("c", ["true"])))).toBe("ALREADY_EXISTS");
      expect(await codeOf(container.create())).toBe("FAILED_PRECONDITION");
      await sandbox[Symbol.asyncDispose]();
      expect(await fixture.store.find(sandbox.id)).toBeUndefined();
      expect(existsSync(sandbox.dir)).toBe(false);
      expect(fixture.leftovers()).toEqual([]);
      const again = await createSandbox({ name: "claimed" });
      await again[Symbol.asyncDispose]();
    });

    test("an image that is not there leaves nothing behind", async () => {
      const sandbox = await createSandbox();
      const spec = containerSpec("c", ["true"], { image: "rootfs:/nowhere" });
      expect(await codeOf(sandbox.addContainer(spec))).toBe("NOT_FOUND");
      await sandbox[Symbol.asyncDispose]();
      expect(fixture.leftovers()).toEqual([]);
    });

    describe("a sandbox that runs", () => {
      let sandbox: Sandbox;
      let main: Container;

      beforeAll(async () => {
        sandbox = await createSandbox();
        const script =
          'echo "$KEY $(hostname)"; echo problem >&2; cat; trap "exit 7" TERM; echo ready; while :; do sleep 0.05; done';
        main = await sandbox.addContainer(containerSpec("main", ["sh", "-c", script], { stdin: true }));
        await sandbox.start();
        await main.create();
      }, TIMEOUT_MS);

      test(
        "goes through the states in order, and has each on disk",
        async () => {
          expect(sandbox.state.status).toBe("running");
          expect(await statusOf(sandbox, "main")).toBe("created");
          expect(await codeOf(main.pause())).toBe("FAILED_PRECONDITION");
          await main.start();
          expect(await statusOf(sandbox, "main")).toBe("running");
          expect(await codeOf(main.start())).toBe("FAILED_PRECONDITION");
          expect(await codeOf(sandbox.start())).toBe("FAILED_PRECONDITION");
          expect(await codeOf(main.remove())).toBe("FAILED_PRECONDITION");
        },
        TIMEOUT_MS,
      );

      test(
        "passes input and output",
        async () => {
          expect(await readUntil(main.process, "\n")).toBe("value contract\n");
          expect(Buffer.from(await main.process.readStderr(100)).toString()).toBe("problem\n");
          await main.process.writeStdin(Buffer.from("typed\n"));
          expect(await readUntil(main.process, "\n")).toBe("typed\n");
          await main.process.closeStdin();
          expect(await readUntil(main.process, "\n")).toBe("ready\n");
        },
        TIMEOUT_MS,
      );

      test(
        "runs further processes",
        async () => {
          const added = { env: [], terminal: false, stdin: false };
          const process = await main.exec({
            ...added,
            id: "e1",
            args: ["sh", "-c", "echo out; echo err >&2; exit 5"],
          });
          expect(await readAll((max) => process.readStdout(max))).toBe("out\n");
          expect(await readAll((max) => process.readStderr(max))).toBe("err\n");
          expect(await process.wait()).toBe(5);
          expect(await codeOf(main.exec({ ...added, id: "e2", args: ["no-such-program"] }))).toBe(
            "NOT_FOUND",
          );
          expect(await codeOf(main.exec({ ...added, id: "e3", args: ["/etc/passwd"] }))).toBe(
            "PERMISSION_DENIED",
          );
          const terminal = await main.exec({
            ...added,
            id: "e4",
            args: ["sh", "-c", "read x; stty size"],
            terminal: true,
          });
          await terminal.resize(100, 30);
          await terminal.writeStdin(Buffer.from("\n"));
          expect(await readAll((max) => terminal.readStdout(max))).toContain("30 100");
          expect(await terminal.wait()).toBe(0);
          const stranger = await main.exec({ ...added, id: "e5", args: ["sleep", "1000"] });
          await stranger.kill(SIGKILL);
          expect(await stranger.wait()).toBe(137);
        },
        TIMEOUT_MS,
      );

      test(
        "pauses and goes on",
        async () => {
          await main.pause();
          expect(await statusOf(sandbox, "main")).toBe("paused");
          const request = { id: "e6", args: ["true"], env: [], terminal: false, stdin: false };
          expect(await codeOf(main.exec(request))).toBe("FAILED_PRECONDITION");
          await main.resume();
          expect(await statusOf(sandbox, "main")).toBe("running");
          const stats = await main.stats();
          expect(stats.cpuNs).toBeGreaterThan(0);
        },
        TIMEOUT_MS,
      );

      test(
        "takes containers at run time and gives them up again",
        async () => {
          const second = await sandbox.addContainer(containerSpec("second", ["sh", "-c", "id -u; exit 4"]));
          await second.create();
          await second.start();
          expect(await readAll((max) => second.process.readStdout(max))).toBe("0\n");
          expect(await second.wait()).toBe(4);
          expect(await statusOf(sandbox, "second")).toBe("stopped");
          await second.remove();
          expect([...sandbox.containers.keys()]).toEqual(["main"]);
          const missing = await sandbox.addContainer(containerSpec("second", ["no-such-program"]));
          const starting = missing.create().then(() => missing.start());
          expect(await codeOf(starting)).toBe("NOT_FOUND");
        },
        TIMEOUT_MS,
      );

      test(
        "stops a container by signals, and keeps what became of it",
        async () => {
          await main.kill(SIGTERM);
          expect(await main.wait()).toBe(7);
          expect(await codeOf(main.kill(SIGTERM))).toBe("FAILED_PRECONDITION");
          await sandbox[Symbol.asyncDispose]();
          expect(await fixture.store.find(sandbox.id)).toMatchObject({ status: "stopped" });
          const states = (await fixture.store.find(sandbox.id))?.containers ?? [];
          expect(states.find(({ id }) => id === "main")).toMatchObject({ status: "stopped", exitCode: 7 });
          expect(fixture.leftovers()).toEqual([]);
        },
        TIMEOUT_MS,
      );
    });

    test(
      "a sandbox that breaks says so to everybody and leaves nothing behind",
      async () => {
        const sandbox = await createSandbox({ autoRemove: true });
        const container = await sandbox.addContainer(containerSpec("c", ["sleep", "1000"]));
        await sandbox.start();
        await container.create();
        await container.start();
        const waiting = codeOf(container.wait());
        await fixture.breakSandbox(sandbox);
        expect(await codeOf(sandbox.broken)).not.toBe("OK");
        expect(await waiting).not.toBe("OK");
        expect(
          await codeOf(container.exec({ id: "e", args: ["true"], env: [], terminal: false, stdin: false })),
        ).not.toBe("OK");
        await sandbox[Symbol.asyncDispose]();
        expect(await fixture.store.find(sandbox.id)).toBeUndefined();
        expect(fixture.leftovers()).toEqual([]);
      },
      TIMEOUT_MS,
    );
  });
}
