import { describe, expect, test } from "bun:test";
import {
  CONTAINER_TRANSITIONS,
  type ContainerAction,
  type ContainerStatus,
  nextStatus,
  SANDBOX_TRANSITIONS,
} from "#runtime/lifecycle.ts";

const statuses: ContainerStatus[] = ["creating", "created", "running", "paused", "stopped"];
const actions: ContainerAction[] = ["create", "start", "exec", "signal", "pause", "resume", "exit", "delete"];

/** Every cell of the table that is allowed; all others must be refused. */
const allowed: Record<string, ContainerStatus> = {
  "creating create": "created",
  "creating exit": "stopped",
  "created start": "running",
  "created signal": "created",
  "created exit": "stopped",
  "running exec": "running",
  "running signal": "running",
  "running pause": "paused",
  "running exit": "stopped",
  "paused signal": "paused",
  "paused resume": "running",
  "paused exit": "stopped",
  "stopped exit": "stopped",
  "stopped delete": "stopped",
};

describe("the life of a container", () => {
  for (const status of statuses) {
    for (const action of actions) {
      const next = allowed[`${status} ${action}`];
      test(`${status}: ${action} ${next ? `leads to ${next}` : "is refused"}`, () => {
        const attempt = () => nextStatus(CONTAINER_TRANSITIONS, status, action, 'container "c1"');
        if (next) expect(attempt()).toBe(next);
        else expect(attempt).toThrow(`Cannot ${action} container "c1": it is ${status}`);
      });
    }
  }

  test("whatever happens, it can stop, and only a stopped one can be deleted", () => {
    for (const status of statuses) expect(CONTAINER_TRANSITIONS[status].exit).toBe("stopped");
    expect(statuses.filter((status) => CONTAINER_TRANSITIONS[status].delete)).toEqual(["stopped"]);
  });
});

describe("the life of a sandbox", () => {
  test("starts once and stops for good", () => {
    expect(nextStatus(SANDBOX_TRANSITIONS, "creating", "start", "s")).toBe("running");
    expect(() => nextStatus(SANDBOX_TRANSITIONS, "running", "start", "s")).toThrow("it is running");
    expect(nextStatus(SANDBOX_TRANSITIONS, "running", "stop", "s")).toBe("stopped");
    expect(() => nextStatus(SANDBOX_TRANSITIONS, "stopped", "add container", "s")).toThrow("it is stopped");
  });
});
