/** Runs in L1: takes requests on stdin, runs commands, sends what they print and how they end on stdout. */
import { writeSync } from "node:fs";
import { constants } from "node:os";
import type { Reply, Request } from "./protocol.ts";

const running = new Map<number, Bun.Subprocess>();

function send(reply: Reply): void {
  const line = Buffer.from(`${JSON.stringify(reply)}\n`);
  for (let offset = 0; offset < line.length; ) offset += writeSync(1, line, offset);
}

async function forward(
  id: number,
  stream: "stdout" | "stderr",
  output: ReadableStream<Uint8Array>,
): Promise<void> {
  for await (const chunk of output) {
    send({ kind: "output", id, stream, data: Buffer.from(chunk).toString("base64") });
  }
}

async function run({ id, argv, env, cwd, stdin }: Request & { kind: "run" }): Promise<void> {
  const child = Bun.spawn([...argv], {
    cwd,
    env: { ...process.env, ...env },
    stdin: Buffer.from(stdin, "base64"),
    stdout: "pipe",
    stderr: "pipe",
    detached: true,
  });
  running.set(id, child);
  const forwarded = Promise.all([forward(id, "stdout", child.stdout), forward(id, "stderr", child.stderr)]);
  await child.exited;
  running.delete(id);
  // A daemon may keep the pipes open for ever; what the command itself wrote is there within a moment.
  await Promise.race([forwarded, Bun.sleep(DRAIN_MS)]);
  const signal = child.signalCode ? constants.signals[child.signalCode as NodeJS.Signals] : 0;
  send({ kind: "exit", id, code: child.exitCode ?? 128 + signal });
}

const DRAIN_MS = 1000;

function handle(request: Request): void {
  if (request.kind === "ping") send({ kind: "pong" });
  else if (request.kind === "kill") kill(request.id);
  else run(request).catch((error: unknown) => reportFailure(request.id, error));
}

function kill(id: number): void {
  const child = running.get(id);
  if (child) process.kill(-child.pid, "SIGKILL");
}

function reportFailure(id: number, error: unknown): void {
  send({ kind: "failed", id, message: error instanceof Error ? error.message : String(error) });
}

send({ kind: "ready" });
for await (const line of console) handle(JSON.parse(line) as Request);
