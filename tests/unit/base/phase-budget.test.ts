import { expect, test } from "bun:test";
import { PhaseBudget } from "#base/phase-budget.ts";

const never = () => new Promise<never>(() => {});

test("run() gives the outcome back, and time between phases does not count", async () => {
  let now = 0;
  const budget = new PhaseBudget("work", 10_000, () => now);
  const work = async () => {
    now += 4000;
    return "a";
  };
  expect(await budget.run("first", work)).toBe("a");
  now += 100_000;
  expect(budget.remainingMs).toBe(6000);
  await expect(budget.run("second", async () => Promise.reject(new Error("own")))).rejects.toThrow("own");
});

test("run() fails when the time is up, with what each phase took, even if the work ignores its signal", async () => {
  let now = 0;
  const budget = new PhaseBudget('create container "c1"', 3000, () => now);
  await budget.run("image", async () => {
    now += 2980;
  });
  const failing = budget.run("copying files", () => {
    now += 100;
    return never();
  });
  await expect(failing).rejects.toMatchObject({
    code: "DEADLINE_EXCEEDED",
    message:
      'Cannot create container "c1" within 3 s: image took 3 s, copying files took 0.1 s without an end',
  });
});

test("the phase's signal fires when the time is up", async () => {
  const budget = new PhaseBudget("work", 20);
  let fired = false;
  const failing = budget.run("only", (signal) => {
    signal.addEventListener("abort", () => {
      fired = true;
    });
    return never();
  });
  await expect(failing).rejects.toMatchObject({ code: "DEADLINE_EXCEEDED" });
  expect(fired).toBe(true);
});

test("an outer signal cancels instead", async () => {
  const outer = new AbortController();
  const failing = new PhaseBudget("work", 60_000).run("only", never, outer.signal);
  outer.abort();
  await expect(failing).rejects.toMatchObject({ code: "CANCELLED" });
});

test("parts of a phase are told, too", async () => {
  const budget = new PhaseBudget("work", 20);
  const failing = budget.run("image and volumes", async () => {
    await budget.note("image", async () => {});
    await budget.note('volume "/data"', never);
  });
  await expect(failing).rejects.toThrow(
    /image and volumes took \S+ s without an end, image took \S+ s, volume "\/data" took \S+ s without an end/,
  );
});
