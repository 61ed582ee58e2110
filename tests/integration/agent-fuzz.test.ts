import { afterAll, beforeAll, describe, expect } from "bun:test";
import { mkdirSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { HakoError } from "#base/error.ts";
import { AgentServiceDefinition } from "#proto/agent.ts";
import { encodeMessage } from "#ttrpc/definition.ts";
import { decodeResponse, encodeRequest, encodeRoute } from "#ttrpc/envelope.ts";
import { encodeHeader, FrameDecoder, HEADER_LENGTH, MESSAGE_TYPE } from "#ttrpc/frame.ts";
import { AgentProcess, agentProcessMissing } from "../support/agent-process.ts";
import { type AgentCall, sampleRequests } from "../support/agent-requests.ts";
import { testIf } from "../support/skip.ts";

const missing = agentProcessMissing();
const agentTest = testIf(missing === undefined, missing ?? "");

/** Fixed counts: the same work on every machine. */
const FRAME_ROUNDS = 20_000;
const HANDLER_ROUNDS = 3200;
const SEED = 20261127;
const STATUS_MAX = 16;
const EMPTY = new Uint8Array();

let box: AgentProcess;

beforeAll(async () => {
  if (missing !== undefined) return;
  box = await AgentProcess.start({ network: true, stderr: "ignore", config: "hotplug_timeout = 0" });
  mkdirSync(join(box.runDirectory, "shared/containers"), { recursive: true });
});

afterAll(async () => {
  await box?.[Symbol.asyncDispose]();
});

/** The same sequence each time (a linear congruence; Knuth, MMIX). */
class Chance {
  #state: bigint;

  constructor(seed: number) {
    this.#state = BigInt(seed);
  }

  below(limit: number): number {
    this.#state = (this.#state * 6364136223846793005n + 1442695040888963407n) & 0xffff_ffff_ffff_ffffn;
    return Number(this.#state >> 33n) % limit;
  }

  pick<T>(values: readonly T[]): T {
    return values[this.below(values.length)] as T;
  }
}

const oddStrings = [
  "",
  "..",
  "../../../../tmp/hako-fuzz",
  "/",
  "/etc/passwd",
  "a\0b",
  "x".repeat(5000),
  "💥\u202e",
  "-1",
  "__proto__",
  "constructor",
  "%s%n",
  "f1",
];
const oddNumbers = [0, 1, -1, 7, 255, 65536, 0x7fff_ffff, 0xffff_ffff];
const oddBigints = [0n, 1n, -1n, 1n << 31n, 1n << 32n, (1n << 63n) - 1n];

/** A copy of a request in which about one member in eight is something else of its type. */
function alter(value: unknown, chance: Chance): unknown {
  const odd = chance.below(8) === 0;
  if (typeof value === "string") return odd ? chance.pick(oddStrings) : value;
  if (typeof value === "number") return odd ? chance.pick(oddNumbers) : value;
  if (typeof value === "bigint") return odd ? chance.pick(oddBigints) : value;
  if (typeof value === "boolean") return odd ? !value : value;
  if (value instanceof Uint8Array)
    return odd ? Buffer.alloc(chance.below(100_000), chance.below(256)) : value;
  if (Array.isArray(value)) {
    const altered = value.flatMap((item) => (odd && chance.below(2) === 0 ? [] : [alter(item, chance)]));
    return odd ? [...altered, ...altered] : altered;
  }
  if (typeof value !== "object" || value === null) return value;
  const entries = Object.entries(value).filter(([name]) => name !== "_unknownFields");
  return Object.fromEntries(
    entries.flatMap(([name, member]) =>
      odd && chance.below(6) === 0 ? [] : [[name, alter(member, chance)]],
    ),
  );
}

/** Bytes of a request in which some bits, bytes or lengths are others, or some are missing. */
function damage(bytes: Buffer, chance: Chance): Buffer {
  let damaged = Buffer.from(bytes);
  for (let count = chance.below(4) + 1; count > 0 && damaged.length > 0; count--) {
    const at = chance.below(damaged.length);
    switch (chance.below(5)) {
      case 0:
        damaged[at] = chance.below(256);
        break;
      case 1:
        damaged[at] = (damaged[at] ?? 0) ^ (1 << chance.below(8));
        break;
      case 2:
        damaged = Buffer.concat([damaged.subarray(0, at), damaged.subarray(at + chance.below(16))]);
        break;
      case 3:
        damaged = Buffer.concat([damaged.subarray(0, at), damaged.subarray(chance.below(damaged.length))]);
        break;
      default:
        damaged.fill(0xff, at, Math.min(at + 5, damaged.length));
    }
  }
  return damaged;
}

/** Some numbers are none that a message can carry. */
function canEncode(call: AgentCall, request: object): boolean {
  try {
    encodeCall(call, request);
    return true;
  } catch {
    return false;
  }
}

function encodeCall(call: AgentCall, request: object): Buffer {
  const method = AgentServiceDefinition.methods[call];
  const route = encodeRoute(AgentServiceDefinition.fullName, method.name);
  const payload = encodeMessage(method.requestType as never, request as never);
  return Buffer.from(encodeRequest(route, payload, 0n, new Map()));
}

function frame(streamId: number, payload: Uint8Array): Buffer {
  const bytes = Buffer.alloc(HEADER_LENGTH + payload.length);
  encodeHeader(bytes, 0, streamId, MESSAGE_TYPE.request, 0, payload.length);
  bytes.set(payload, HEADER_LENGTH);
  return bytes;
}

/** Sends bytes on a connection of their own and takes what comes back until the agent has nothing to say. */
async function converse(bytes: readonly Buffer[]): Promise<number> {
  let answers = 0;
  const ended = Promise.withResolvers<void>();
  const decoder = new FrameDecoder({
    frame(_, type, __, payload) {
      if (type !== MESSAGE_TYPE.response) return;
      answers++;
      const { status } = decodeResponse(payload);
      const code = status?.code ?? 0;
      if (code < 0 || code > STATUS_MAX) ended.reject(new Error(`status ${code}`));
    },
    oversized: () => ended.reject(new Error("an answer beyond the limit")),
  });
  const socket = await Bun.connect({
    unix: box.socket,
    socket: {
      data: (_, chunk) => decoder.push(chunk),
      close: () => ended.resolve(),
      error: () => ended.resolve(),
    },
  });
  for (const part of bytes) socket.write(part);
  socket.flush();
  // The agent closes a connection whose frames make no sense; else it has answered by the time it answers others.
  await Promise.race([ended.promise, box.client.health.check({}).then(() => Bun.sleep(1))]);
  socket.end();
  return answers;
}

/** A defect of ours would be INTERNAL or UNKNOWN, a call that never ends would run out of its time. */
function suspicious({ code, message }: HakoError): boolean {
  if (code === "DEADLINE_EXCEEDED") return !message.includes("did not appear");
  return code === "INTERNAL" || code === "UNKNOWN";
}

/** What must not grow: descriptors of the agent. */
const descriptors = () => readdirSync(`/proc/${box.pid}/fd`).length;

/** Removes all containers; some may still be in the making, for callers that have hung up. */
async function cleanUp(): Promise<void> {
  while (box.cgroups.length > 0) {
    for (const containerId of box.cgroups) {
      await box.agent.removeContainer({ containerId, timeout: 20 }).catch((error) => {
        if (!(error instanceof HakoError)) throw error;
      });
    }
    await Bun.sleep(10);
  }
}

describe("an agent that is asked nonsense", () => {
  agentTest(
    "by frames: answers with statuses or hangs up, and lives",
    async () => {
      const chance = new Chance(SEED);
      const seeds = (await sampleRequests(box.runDirectory)).map(([call, request]) =>
        encodeCall(call, request),
      );
      await converse([frame(1, seeds[0] ?? EMPTY)]);
      await cleanUp();
      const before = descriptors();
      let answers = 0;
      const PER_CONNECTION = 20;
      for (let round = 0; round < FRAME_ROUNDS; round += PER_CONNECTION) {
        const parts = Array.from({ length: PER_CONNECTION }, (_, index) => {
          const seed = chance.pick(seeds);
          // Half the damage is to the message, half to the frame around it.
          return chance.below(2) === 0
            ? frame(2 * index + 1, damage(seed, chance))
            : damage(frame(2 * index + 1, seed), chance);
        });
        answers += await converse(parts);
      }
      expect(answers).toBeGreaterThan(FRAME_ROUNDS / 20);
      expect((await box.client.health.check({})).status).toBe(1);
      await cleanUp();
      expect(box.cgroups).toEqual([]);
      expect(descriptors()).toBeLessThan(before + 20);
    },
    120_000,
  );

  agentTest(
    "by requests: every answer is a status of the closed set, and nothing stays",
    async () => {
      const chance = new Chance(SEED + 1);
      const samples = await sampleRequests(box.runDirectory);
      const client = box.agent as unknown as Record<
        AgentCall,
        (request: object, options: object) => Promise<unknown>
      >;
      const before = descriptors();
      const codes = new Map<string, number>();
      const strange: unknown[] = [];
      const one = async () => {
        const [call, request] = chance.pick(samples);
        const altered = alter(request, chance) as object;
        if (!canEncode(call, altered)) return;
        try {
          await client[call](altered, { timeoutMs: 20_000 });
          codes.set("OK", (codes.get("OK") ?? 0) + 1);
        } catch (error) {
          if (error instanceof HakoError) {
            codes.set(error.code, (codes.get(error.code) ?? 0) + 1);
            if (suspicious(error)) strange.push([call, error.code, error.message]);
          } else strange.push(error);
        }
      };
      for (let round = 0; round < HANDLER_ROUNDS; round += 8)
        await Promise.all(Array.from({ length: 8 }, one));
      expect(strange).toEqual([]);
      expect(codes.get("OK")).toBeGreaterThan(50);
      expect(codes.get("INVALID_ARGUMENT")).toBeGreaterThan(50);
      expect((await box.client.health.check({})).status).toBe(1);
      await cleanUp();
      expect(box.cgroups).toEqual([]);
      // Volumes of the sandbox stay until its end.
      expect(box.mounts.filter((path) => !path.includes("/volume/") && !path.includes("/sandbox"))).toEqual(
        [],
      );
      expect(descriptors()).toBeLessThan(before + 20);
      expect(readdirSync("/tmp")).not.toContain("hako-fuzz");
      expect(readFileSync("/etc/passwd", "utf8")).toContain("root:");
    },
    120_000,
  );
});
