import { expect, test } from "bun:test";
import { ManagerDefinition } from "#proto/manager.ts";
import { EventLoopLag } from "#shim/event-loop-lag.ts";
import type { Pod } from "#shim/pod.ts";
import { SERVICES, type ServiceEntry } from "#shim/registry.ts";
import { type ShimService, serviceCalls } from "#shim/service.ts";
import { ServiceHost } from "#shim/service-host.ts";
import { memoryStreamPair } from "#sys/byte-stream.ts";
import { createClient, TtrpcClient } from "#ttrpc/client.ts";
import { TtrpcServer } from "#ttrpc/server.ts";

/** A service of somebody else: two members to write, and one line where it is listed. */
function plugin(log: string[], fails: () => boolean = () => false): ServiceEntry {
  const service: ShimService = {
    name: "plugin",
    calls: [
      serviceCalls(ManagerDefinition, {
        kill: ({ containerId }) => {
          log.push(`kill ${containerId}`);
          return {};
        },
      }),
    ],
    start: async () => void log.push("start"),
    stop: async () => void log.push("stop"),
  };
  return {
    name: "plugin",
    use: [ManagerDefinition.fullName],
    load: async () => {
      log.push("load");
      if (fails()) throw new Error("not yet");
      return service;
    },
  };
}

function connect(entries: readonly ServiceEntry[]) {
  const server = new TtrpcServer();
  const services = new ServiceHost(server, entries);
  const lag = new EventLoopLag();
  services.offer({ pod: {} as Pod, lag, shutdown() {} });
  const [left, right] = memoryStreamPair();
  server.serve(left);
  return { services, lag, manager: createClient(ManagerDefinition, new TtrpcClient(right)) };
}

test("a service is loaded by its first call, once, and stopped at the end", async () => {
  const log: string[] = [];
  const { services, manager } = connect([...SERVICES, plugin(log)]);
  expect(services.used).toBe(false);
  expect(log).toEqual([]);
  await Promise.all(["a", "b", "c"].map((containerId) => manager.kill({ containerId, signal: 9 })));
  expect(log).toEqual(["load", "start", "kill a", "kill b", "kill c"]);
  expect(services.used).toBe(true);
  await services.stop();
  expect(log.at(-1)).toBe("stop");
});

test("one that cannot be loaded fails its call, and is tried again", async () => {
  const log: string[] = [];
  let broken = true;
  const { manager } = connect([plugin(log, () => broken)]);
  await expect(manager.kill({ containerId: "a", signal: 9 })).rejects.toThrow("not yet");
  broken = false;
  await manager.kill({ containerId: "a", signal: 9 });
  expect(log).toEqual(["load", "load", "start", "kill a"]);
});

test("what belongs to a sandbox starts with it, and a failure there is no failure of the sandbox", async () => {
  const log: string[] = [];
  const good: ServiceEntry = {
    ...plugin(log),
    use: "sandbox",
    load: async () => ({
      name: "x",
      calls: [],
      start: async () => void log.push("started"),
      stop: async () => {},
    }),
  };
  const bad: ServiceEntry = { ...plugin(log, () => true), use: "sandbox" };
  const { services } = connect([bad, good]);
  await services.sandboxStarted();
  expect(log).toEqual(["load", "started"]);
});

test("the event loop's lag is measured", async () => {
  using lag = new EventLoopLag();
  const end = performance.now() + 1300;
  while (performance.now() < end);
  await Bun.sleep(50);
  const { max, count, sum, last } = lag.seconds;
  expect(count).toBe(1);
  expect(max).toBeGreaterThan(0.2);
  expect([sum, last]).toEqual([max, max]);
});
