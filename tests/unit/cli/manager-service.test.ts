import { describe, expect, test } from "bun:test";
import { RemoteProcess } from "#cli/manager/client.ts";
import { ManagerService } from "#cli/manager/service.ts";
import { ManagerDefinition } from "#proto/manager.ts";
import type { Container, ExecSpec } from "#runtime/container.ts";
import type { Process } from "#runtime/process.ts";
import type { Sandbox } from "#runtime/sandbox.ts";
import { memoryStreamPair } from "#sys/byte-stream.ts";
import { createClient, TtrpcClient } from "#ttrpc/client.ts";
import { TtrpcServer } from "#ttrpc/server.ts";

const EMPTY = new Uint8Array(0);

/** A process in memory: gives its output out piece by piece and ends when told to. */
class TestProcess implements Process {
  readonly terminal: boolean;
  readonly id: string;
  readonly input: string[] = [];
  readonly signals: number[] = [];
  readonly #output: Uint8Array[];
  readonly #exit = Promise.withResolvers<number>();

  constructor(spec: ExecSpec) {
    this.id = spec.id;
    this.terminal = spec.terminal;
    this.#output = spec.args.map((word) => Buffer.from(word));
  }

  async readStdout(): Promise<Uint8Array> {
    return this.#output.shift() ?? EMPTY;
  }

  async readStderr(): Promise<Uint8Array> {
    return EMPTY;
  }

  async writeStdin(data: Uint8Array): Promise<void> {
    this.input.push(Buffer.from(data).toString());
  }

  async closeStdin(): Promise<void> {
    this.input.push("(end)");
  }

  async resize(columns: number, rows: number): Promise<void> {
    this.input.push(`(${columns}x${rows})`);
  }

  async kill(signalNumber: number): Promise<void> {
    this.signals.push(signalNumber);
    this.#exit.resolve(128 + signalNumber);
  }

  end(code: number): void {
    this.#exit.resolve(code);
  }

  async wait(signal?: AbortSignal): Promise<number> {
    const { promise, reject } = Promise.withResolvers<never>();
    signal?.addEventListener("abort", () => reject(new Error("aborted")));
    return Promise.race([this.#exit.promise, promise]);
  }
}

function connect() {
  const processes: TestProcess[] = [];
  const container: Partial<Container> = {
    id: "c",
    async exec(spec) {
      if ("process" in spec) throw new Error("the service asks for parts");
      const process = new TestProcess(spec);
      processes.push(process);
      return process;
    },
  };
  const sandbox = { id: "s", containers: new Map([["c", container as Container]]) } as unknown as Sandbox;
  let removed = 0;
  const server = new TtrpcServer();
  server.register(
    ManagerDefinition,
    new ManagerService(sandbox, async () => {
      removed++;
    }),
  );
  const [left, right] = memoryStreamPair();
  server.serve(right);
  const client = new TtrpcClient(left);
  return { manager: createClient(ManagerDefinition, client), client, processes, removed: () => removed };
}

async function readAll(process: Process): Promise<string> {
  let text = "";
  for (let data = await process.readStdout(100); data.length > 0; data = await process.readStdout(100)) {
    text += Buffer.from(data).toString();
  }
  await process.readStderr(100);
  return text;
}

/** The message of the error; `rejects` of the test runner turns the event loop inside itself, which is slow. */
function failure(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => "(no failure)",
    (error: unknown) => String(error),
  );
}

describe("ManagerService", () => {
  test("joins a caller with a process", async () => {
    const { manager, processes } = connect();
    const { processId } = await manager.exec({ containerId: "c", args: ["one ", "two"], stdin: true });
    const remote = new RemoteProcess(manager, processId, false);
    await remote.writeStdin(Buffer.from("typed"));
    await remote.resize(80, 25);
    await remote.closeStdin();
    expect(processes[0]?.input).toEqual(["typed", "(80x25)", "(end)"]);
    expect(await readAll(remote)).toBe("one two");
    processes[0]?.end(3);
    expect(await remote.wait()).toBe(3);
  });

  test("forgets a process when all of it was taken, whatever the order", async () => {
    const { manager, processes } = connect();
    for (let index = 0; index < 1200; index++) {
      const { processId } = await manager.exec({ containerId: "c", args: ["x"] });
      const remote = new RemoteProcess(manager, processId, false);
      processes[index]?.end(0);
      if (index % 2 === 0) await remote.wait();
      await readAll(remote);
      if (index % 2 === 1) await remote.wait();
      expect(await failure(remote.readStdout(1))).toContain(`No process "${processId}"`);
    }
  });

  test("takes no more processes than it can keep", async () => {
    const { manager } = connect();
    for (let index = 0; index < 1000; index++) await manager.exec({ containerId: "c", args: ["x"] });
    expect(await failure(manager.exec({ containerId: "c", args: ["x"] }))).toContain(
      "1000 are there already",
    );
  });

  test("kills a process whose caller goes before its end", async () => {
    const { manager, client, processes } = connect();
    const { processId } = await manager.exec({ containerId: "c", args: [] });
    const waiting = new RemoteProcess(manager, processId, false).wait();
    await Bun.sleep(5);
    client.close();
    expect(await failure(waiting)).toContain("closed");
    await Bun.sleep(5);
    expect(processes[0]?.signals).toEqual([9]);
  });

  test("drains a detached process, so that it does not stop for want of a reader", async () => {
    const { manager, processes } = connect();
    const { processId } = await manager.exec({ containerId: "c", args: ["much", "output"], detached: true });
    processes[0]?.end(0);
    await Bun.sleep(5);
    expect(await failure(manager.wait({ processId }))).toContain("No process");
  });

  test("knows its container only, and hands removal on", async () => {
    const { manager, removed } = connect();
    expect(await failure(manager.exec({ containerId: "other", args: ["x"] }))).toContain(
      'No container "other"',
    );
    await manager.remove({});
    expect(removed()).toBe(1);
  });
});
