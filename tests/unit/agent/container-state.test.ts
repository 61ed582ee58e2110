import { expect, test } from "bun:test";
import { type ContainerAction, type ContainerState, nextState } from "#agent/container-state.ts";

const states: ContainerState[] = ["created", "running", "paused", "stopped"];
const actions: ContainerAction[] = ["start", "exec", "pause", "resume", "exit"];

test("every state takes just the actions of the table", () => {
  const allowed = states.flatMap((state) =>
    actions.flatMap((action) => {
      try {
        return `${state} ${action} ${nextState("c", state, action)}`;
      } catch {
        return [];
      }
    }),
  );
  expect(allowed).toEqual([
    "created start running",
    "created exit stopped",
    "running exec running",
    "running pause paused",
    "running exit stopped",
    "paused resume running",
    "paused exit stopped",
    "stopped exit stopped",
  ]);
});

test("the error names container, action and state", () => {
  expect(() => nextState("c1", "stopped", "start")).toThrow('Cannot start container "c1": it is stopped');
});
