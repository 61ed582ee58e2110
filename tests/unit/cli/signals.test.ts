import { afterEach, describe, expect, test } from "bun:test";
import { SignalRouter } from "#cli/signals.ts";

let router = new SignalRouter();
router[Symbol.dispose]();
afterEach(() => router[Symbol.dispose]());

describe("SignalRouter", () => {
  test("a signal ends the start, and says which it was", () => {
    router = new SignalRouter();
    expect(router.exitCode).toBeUndefined();
    process.emit("SIGUSR1");
    expect(router.aborted.aborted).toBe(false);
    process.emit("SIGTERM");
    expect(router.aborted.aborted).toBe(true);
    expect(router.exitCode).toBe(143);
    process.emit("SIGINT");
    expect(router.exitCode).toBe(143);
  });

  test("then they go to the process, and the third request is an order", () => {
    router = new SignalRouter();
    const received: number[] = [];
    router.forwardTo(async (signalNumber) => void received.push(signalNumber));
    for (const name of ["SIGUSR1", "SIGINT", "SIGUSR2", "SIGTERM", "SIGINT", "SIGHUP"] as const)
      process.emit(name);
    expect(received).toEqual([10, 2, 12, 15, 9, 9]);
    expect(router.exitCode).toBeUndefined();
  });

  test("a process that takes none is no error, and in the end they are ignored", async () => {
    router = new SignalRouter();
    let calls = 0;
    router.forwardTo(async () => {
      calls++;
      throw new Error("it has ended");
    });
    process.emit("SIGINT");
    await Bun.sleep(1);
    router.ignore();
    process.emit("SIGINT");
    expect(calls).toBe(1);
    router.forwardTo(async () => void calls++);
    process.emit("SIGINT");
    expect(calls).toBe(1);
  });

  test("leaves no listener behind", () => {
    const before = process.listenerCount("SIGINT");
    new SignalRouter()[Symbol.dispose]();
    expect(process.listenerCount("SIGINT")).toBe(before);
  });
});
