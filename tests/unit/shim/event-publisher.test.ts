import { afterEach, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { HakoError } from "#base/error.ts";
import { EventsDefinition } from "#proto/containerd/event-service.ts";
import { TaskExit } from "#proto/containerd/events.ts";
import { EventPublisher } from "#shim/event-publisher.ts";
import { publishTask } from "#shim/task-events.ts";
import { serveUnix } from "#ttrpc/listener.ts";
import { TtrpcServer } from "#ttrpc/server.ts";

const dir = mkdtempSync(join(tmpdir(), "events-"));
const path = join(dir, "s");
let serving: (() => void) | undefined;

afterEach(() => serving?.());
process.on("exit", () => rmSync(dir, { recursive: true, force: true }));

interface Seen {
  topic: string;
  type: string;
  namespace: readonly string[] | undefined;
  code: number;
}

/** containerd's side; `answer` may throw. */
function serve(answer: () => void = () => {}): Seen[] {
  const seen: Seen[] = [];
  const server = new TtrpcServer();
  server.register(EventsDefinition, {
    forward: ({ envelope }, { metadata }) => {
      answer();
      seen.push({
        topic: envelope?.topic ?? "",
        type: envelope?.event?.typeUrl ?? "",
        namespace: metadata.get("containerd-namespace-ttrpc"),
        code: TaskExit.decode(envelope?.event?.value ?? new Uint8Array()).exitStatus,
      });
      return {};
    },
  });
  const listening = serveUnix(server, path);
  serving = () => {
    listening[Symbol.dispose]();
    server.close();
    serving = undefined;
  };
  return seen;
}

function publish(events: EventPublisher, code: number): void {
  publishTask(events, "exit", { containerId: "c", id: "c", exitStatus: code });
}

test("events arrive in order, with their type and namespace", async () => {
  const seen = serve();
  const events = new EventPublisher(`unix://${path}`, "k8s.io");
  for (let code = 0; code < 20; code++) publish(events, code);
  await events.close(5000);
  expect(seen.map(({ code }) => code)).toEqual(Array.from({ length: 20 }, (_, code) => code));
  expect(seen[0]).toMatchObject({
    topic: "/tasks/exit",
    type: "containerd.events.TaskExit",
    namespace: ["k8s.io"],
  });
});

test("they wait for a containerd that is away, and follow one that restarts", async () => {
  const events = new EventPublisher(path, "n");
  publish(events, 1);
  await Bun.sleep(20);
  expect(events.waiting).toBe(1);
  const first = serve();
  publish(events, 2);
  for (let tries = 0; tries < 200 && first.length < 2; tries++) await Bun.sleep(10);
  expect(first.map(({ code }) => code)).toEqual([1, 2]);
  serving?.();
  publish(events, 3);
  const second = serve();
  await events.close(5000);
  expect(second.map(({ code }) => code)).toEqual([3]);
});

test("a refused event does not hold up the others; one that failed is sent again", async () => {
  let calls = 0;
  const seen = serve(() => {
    calls++;
    if (calls === 1) throw new HakoError("INVALID_ARGUMENT", "No such namespace");
    if (calls === 2) throw new HakoError("INTERNAL", "Not now");
  });
  const events = new EventPublisher(path, "n");
  publish(events, 1);
  publish(events, 2);
  await events.close(5000);
  expect(seen.map(({ code }) => code)).toEqual([2]);
});

test("what waits is limited, the oldest goes, and nobody listening costs nothing", async () => {
  const events = new EventPublisher(path, "n");
  for (let code = 0; code < 2100; code++) publish(events, code);
  expect(events.waiting).toBe(2048);
  expect(events.dropped).toBe(52);
  await events.close(10);
  const silent = new EventPublisher(undefined, "n");
  publish(silent, 1);
  expect(silent.waiting).toBe(0);
});
