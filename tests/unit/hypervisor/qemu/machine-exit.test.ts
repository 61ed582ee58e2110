import { expect, test } from "bun:test";
import { describeProcessExit, ExitCause } from "#hypervisor/qemu/machine-exit.ts";

const clean = { code: 0, signal: null };
const shutdown = (guest: boolean, reason: string) => ({ name: "SHUTDOWN", data: { guest, reason } });

const cases: [string, (cause: ExitCause) => void, string][] = [
  ["a power-off of the guest", (cause) => cause.observe(shutdown(true, "guest-shutdown")), "guest-shutdown"],
  ["a reset by the guest", (cause) => cause.observe(shutdown(true, "guest-reset")), "guest-shutdown"],
  [
    "a panic, although a reset follows it",
    (cause) => {
      cause.observe({ name: "GUEST_PANICKED", data: { action: "pause" } });
      cause.observe(shutdown(true, "guest-reset"));
    },
    "guest-panic",
  ],
  [
    "a stop that was asked for",
    (cause) => {
      cause.stopRequested();
      cause.observe(shutdown(false, "host-qmp-quit"));
    },
    "stopped",
  ],
  [
    "a power-off that was faster than the stop",
    (cause) => {
      cause.observe(shutdown(true, "guest-shutdown"));
      cause.stopRequested();
    },
    "guest-shutdown",
  ],
  ["a failure inside QEMU", (cause) => void cause.observeRunState("internal-error"), "monitor-error"],
  ["QEMU killed from outside", (cause) => cause.observe(shutdown(false, "host-signal")), "monitor-died"],
  ["a death without a word", () => {}, "monitor-died"],
];

test.each(cases)("%s", (_name, tell, reason) => {
  const cause = new ExitCause();
  tell(cause);
  expect(cause.describe(clean, "").reason).toBe(reason as never);
});

test("only run states that are an end count as failures", () => {
  const cause = new ExitCause();
  for (const status of ["paused", "running", "prelaunch", "shutdown"]) {
    expect(cause.observeRunState(status)).toBe(false);
  }
  expect(cause.observeRunState("io-error")).toBe(true);
});

test("QEMU's own words are told", () => {
  expect(describeProcessExit({ code: 1, signal: null }, "cannot set up guest memory")).toBe(
    "QEMU ended with exit code 1: cannot set up guest memory",
  );
  expect(describeProcessExit({ code: null, signal: "SIGKILL" }, "")).toBe("QEMU ended by signal SIGKILL");
});
