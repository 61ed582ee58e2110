/** Many runs, one after the other and side by side: the host is as before. */
import { afterAll, beforeAll, expect } from "bun:test";
import { networkInterfaces } from "node:os";
import { HakoHost, MACHINE_TIMEOUT_MS, machineTest } from "../support/hako-host.ts";
import { busyboxImage } from "../support/images.ts";

/** 100 takes some minutes under emulation: HAKO_TEST_RUNS=100 bun test ./tests/vm/many-runs.test.ts */
const RUNS = Number(process.env.HAKO_TEST_RUNS ?? 8);
const SIDE_BY_SIDE = 2;

const host = new HakoHost();
afterAll(() => host[Symbol.dispose]());

/** Of our own: other sandboxes on this machine have theirs from elsewhere. */
const PREFIX = "10.252.7.";
beforeAll(() => host.configure(`[network]\npool = "${PREFIX}0/24"`));

/** Addresses of the pool that an interface of the machine has. */
function poolAddresses(): string[] {
  const entries = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
  return entries.map(({ address }) => address).filter((address) => address.startsWith(PREFIX));
}

machineTest(
  `${RUNS} runs leave no process, file or interface behind`,
  async () => {
    const image = await busyboxImage("oci");
    let next = 0;
    const worker = async () => {
      for (let index = next++; index < RUNS; index = next++) {
        const net = index % 4 === 0 ? ["--net", "tap"] : [];
        const outcome = await host.run([
          "run",
          "--rm",
          ...net,
          image,
          "sh",
          "-c",
          `echo ${index}; exit ${index % 7}`,
        ]);
        expect(outcome).toEqual({ code: index % 7, stdout: `${index}\n`, stderr: "" });
      }
    };
    await Promise.all(Array.from({ length: SIDE_BY_SIDE }, worker));
    expect(next).toBeGreaterThanOrEqual(RUNS);
    expect(host.leftovers()).toEqual([]);
    expect(poolAddresses()).toEqual([]);
  },
  MACHINE_TIMEOUT_MS + RUNS * 20_000,
);
