import { expect, test } from "bun:test";
import { deviceNumber } from "#linux/device-node.ts";

test("deviceNumber() tells character devices", () => {
  expect(deviceNumber("/dev/null")).toEqual({ type: "c", major: 1, minor: 3 });
});

test("deviceNumber() throws for what is no device", () => {
  expect(() => deviceNumber("/")).toThrow('Cannot use "/": it is no device');
  expect(() => deviceNumber("/nowhere")).toThrow('Cannot find device "/nowhere"');
});
