/** The devices of hako-vmm by themselves, each test a C program under sanitizers that plays the driver. */
import { expect } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { testIf } from "../support/skip.ts";

const programs = join(import.meta.dir, "../../dist/fuzz");
const built = existsSync(join(programs, "queue-test"));
const isRoot = process.getuid?.() === 0;

function deviceTest(title: string, command: readonly string[], needsRoot = false): void {
  const reason = built ? "needs root" : 'needs dist/fuzz ("bun build.ts fuzz")';
  testIf(built && (isRoot || !needsRoot), reason)(
    title,
    async () => {
      const [program = "", ...args] = command;
      const child = Bun.spawn([join(programs, program), ...args], { stdout: "pipe", stderr: "pipe" });
      const [output, errors, code] = await Promise.all([
        child.stdout.text(),
        child.stderr.text(),
        child.exited,
      ]);
      expect({ code, output, errors }).toEqual({
        code: 0,
        output: expect.stringMatching(/^[1-9]\d* checks/),
        errors: "",
      });
    },
    120_000,
  );
}

deviceTest("queues and registers: round trips, event index, broken chains, save and restore", ["queue-test"]);
deviceTest("block: data, ranges, short files, errors, limits, with io_uring", ["block-test"]);
deviceTest("block: the same with plain system calls", ["block-test", "plain"]);
deviceTest("vsock: both directions, credit, half close, thousands of streams", ["vsock-test"]);
deviceTest("net: a real TAP, merged buffers, limits, pairs, a TAP that goes away", ["net-test"], true);
deviceTest("balloon, mem, pmem and console", ["memory-test"]);
