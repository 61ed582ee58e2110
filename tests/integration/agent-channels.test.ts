import { afterAll, beforeAll, describe, expect } from "bun:test";
import { existsSync } from "node:fs";
import { Process } from "#proto/oci.ts";
import { AgentProcess, agentProcessMissing, failure } from "../support/agent-process.ts";
import { testIf } from "../support/skip.ts";

const missing = agentProcessMissing();
const agentTest = testIf(missing === undefined, missing ?? "");

const CONFIG = [
  'log_level = "info"',
  "log_vport = 1025",
  "debug_console = true",
  "debug_console_vport = 1026",
  "passfd_listener_port = 1027",
].join("\n");

let box: AgentProcess;

beforeAll(async () => {
  if (missing !== undefined) return;
  box = await AgentProcess.start({ config: CONFIG, logLevel: "info", stderr: "ignore" });
});

afterAll(async () => {
  await box?.[Symbol.asyncDispose]();
});

/** A client's end of a channel. */
class Connection {
  text = "";
  readonly ended = Promise.withResolvers<void>();
  #socket: Bun.Socket<undefined> | undefined;
  #changed = Promise.withResolvers<void>();
  #over = false;

  static async open(path: string): Promise<Connection> {
    const connection = new Connection();
    connection.#socket = await Bun.connect({
      unix: path,
      socket: {
        data: (_, chunk) => connection.#take(chunk.toString()),
        close: () => connection.#end(),
        end: () => connection.#end(),
      },
    });
    return connection;
  }

  #take(chunk: string): void {
    this.text += chunk;
    this.#changed.resolve();
    this.#changed = Promise.withResolvers<void>();
  }

  #end(): void {
    this.#over = true;
    this.ended.resolve();
    this.#changed.resolve();
  }

  /** Resolves when `text` holds a word; fails when the other side has closed without it. */
  async until(word: string | RegExp): Promise<string> {
    while (this.text.search(word) < 0 && !this.#over) await this.#changed.promise;
    expect(this.text).toMatch(word);
    return this.text;
  }

  write(text: string): void {
    this.#socket?.write(text);
  }

  finish(): void {
    this.#socket?.shutdown();
  }

  close(): void {
    this.#socket?.end();
  }
}

describe("the log channel", () => {
  agentTest("tells what was logged, in the form that Kata's runtime reads", async () => {
    const id = await box.create({ command: ["true"] });
    await box.agent.removeContainer({ containerId: id });
    const log = await Connection.open(`${box.socket}_1025`);
    const text = await log.until("container removed");
    const lines = text
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as Record<string, unknown>);
    const created = lines.find(({ msg }) => msg === "container created");
    expect(created).toMatchObject({ level: "INFO", source: "agent", subsystem: "sandbox", container: id });
    for (const line of lines)
      expect(Object.values(line).every((value) => typeof value === "string")).toBe(true);
    log.close();
    // The next reader goes on where the last one stopped.
    const next = await box.create({ command: ["true"] });
    await box.agent.removeContainer({ containerId: next });
    const again = await Connection.open(`${box.socket}_1025`);
    await again.until(next);
    again.close();
  });
});

describe("the debug console", () => {
  agentTest("is a shell on a terminal", async () => {
    const console = await Connection.open(`${box.socket}_1026`);
    console.write("tty; echo $((6 * 7))-done; exit\n");
    await console.ended.promise;
    expect(console.text).toContain("42-done");
    expect(console.text).toContain("/dev/pts/");
  });

  agentTest("ends with its connection, and more than one may be open", async () => {
    const sessions = await Promise.all([1, 2].map(() => Connection.open(`${box.socket}_1026`)));
    for (const session of sessions) session.write("echo pid=$$=\n");
    const pids: number[] = [];
    for (const session of sessions) {
      await session.until(/pid=\d+=/);
      pids.push(Number(/pid=(\d+)=/.exec(session.text)?.[1]));
      session.close();
    }
    for (const pid of pids) while (existsSync(`/proc/${pid}`)) await Bun.sleep(10);
  });
});

/** Opens a connection that is to become a standard stream; its port is what requests name. */
async function openStream(): Promise<{ connection: Connection; port: number }> {
  const connection = await Connection.open(`${box.socket}_1027`);
  connection.write("CONNECT 1027\n");
  const text = await connection.until("\n");
  const port = Number(/^OK (\d+)\n$/.exec(text)?.[1]);
  connection.text = "";
  return { connection, port };
}

describe("standard streams passed through", () => {
  agentTest("are the program's own: input, output and errors", async () => {
    const [stdin, stdout, stderr] = await Promise.all([openStream(), openStream(), openStream()]);
    const id = await box.create({ command: ["sh", "-c", "cat; echo trouble >&2; exit 3"] }, ({ request }) => {
      Object.assign(request, { stdinPort: stdin.port, stdoutPort: stdout.port, stderrPort: stderr.port });
    });
    await box.agent.startContainer({ containerId: id });
    stdin.connection.write("one\n");
    await stdout.connection.until("one\n");
    stdin.connection.write("two\n");
    stdin.connection.finish();
    await Promise.all([stdout.connection.ended.promise, stderr.connection.ended.promise]);
    expect([stdout.connection.text, stderr.connection.text]).toEqual(["one\ntwo\n", "trouble\n"]);
    expect((await box.agent.waitProcess({ containerId: id })).status).toBe(3);
    await box.agent.removeContainer({ containerId: id });
  });

  agentTest("some of them, of an added process", async () => {
    const id = await box.run("sleep 1000");
    const stdout = await openStream();
    const process = Process.fromPartial({
      Args: ["sh", "-c", "echo out; echo err >&2"],
      Cwd: "/",
      Env: ["PATH=/bin"],
    });
    await box.agent.execProcess({ containerId: id, execId: "e", process, stdoutPort: stdout.port });
    await stdout.connection.ended.promise;
    expect(stdout.connection.text).toBe("out\n");
    expect((await box.readAll(id, "stderr", "e")).toString()).toBe("err\n");
    await box.agent.removeContainer({ containerId: id });
  });

  agentTest("of a terminal", async () => {
    const [stdin, stdout] = await Promise.all([openStream(), openStream()]);
    const script = "test -t 0 && test -t 1 && echo terminal; read x; echo got:$x";
    const id = await box.create({ command: ["sh", "-c", script], terminal: true }, ({ request }) => {
      Object.assign(request, { stdinPort: stdin.port, stdoutPort: stdout.port });
    });
    await box.agent.startContainer({ containerId: id });
    await stdout.connection.until("terminal\r\n");
    stdin.connection.write("word\n");
    await stdout.connection.until("got:word");
    await stdout.connection.ended.promise;
    await box.agent.removeContainer({ containerId: id });
  });

  agentTest("are refused for a port from which nothing came, and taken only once", async () => {
    const wrong = box.create({}, ({ request }) => {
      request.stdoutPort = 77;
    });
    expect((await failure(wrong)).message).toContain("no connection from port 77");
    const { port, connection } = await openStream();
    const id = await box.create({ command: ["true"] }, ({ request }) => {
      request.stdoutPort = port;
    });
    const again = box.create({}, ({ request }) => {
      request.stdoutPort = port;
    });
    expect((await failure(again)).message).toContain(`no connection from port ${port}`);
    await box.agent.removeContainer({ containerId: id });
    connection.close();
    const rude = await Connection.open(`${box.socket}_1027`);
    rude.write(`${"x".repeat(100)}\n`);
    await rude.ended.promise;
  });
});

describe("traces", () => {
  agentTest("of calls are sent to the host, in the caller's trace", async () => {
    await using traced = await AgentProcess.start({ config: "tracing = true" });
    const received = Promise.withResolvers<Buffer>();
    const chunks: Buffer[] = [];
    using _listener = Bun.listen({
      unix: `${traced.socket}_10240`,
      socket: {
        data(_, chunk) {
          chunks.push(Buffer.from(chunk));
          const all = Buffer.concat(chunks);
          if (all.length >= 8 && all.length >= 8 + Number(all.readBigUInt64BE(0))) received.resolve(all);
        },
      },
    });
    const traceId = "0123456789abcdef0123456789abcdef";
    const metadata = new Map([["traceparent", [`00-${traceId}-00f067aa0ba902b7-01`]]]);
    await traced.agent.listRoutes({}, { metadata });
    await failure(traced.agent.startContainer({ containerId: "nobody" }));
    const body = JSON.parse((await received.promise).subarray(8).toString()) as {
      resourceSpans: { scopeSpans: { spans: Record<string, unknown>[] }[] }[];
    };
    const spans = body.resourceSpans[0]?.scopeSpans[0]?.spans ?? [];
    expect(spans).toHaveLength(2);
    expect(spans[0]).toMatchObject({
      name: "grpc.AgentService/ListRoutes",
      traceId,
      parentSpanId: "00f067aa0ba902b7",
      status: { code: 1 },
    });
    expect(spans[1]).toMatchObject({ name: "grpc.AgentService/StartContainer", status: { code: 2 } });
    expect(spans[1]?.traceId).not.toBe(traceId);
    expect(spans[1]?.attributes).toEqual([{ key: "container.id", value: { stringValue: "nobody" } }]);
  });
});
