import { expect, test } from "bun:test";
import { deviceNumber, splitDevice } from "#linux/device-node.ts";

test("device numbers are split as glibc does", () => {
  expect(splitDevice(0x103)).toEqual({ major: 1, minor: 3 });
  // major 259, minor 65537: both beyond the old 8 bits
  expect(splitDevice(259 * 256 + 1 + 0x1000_0000)).toEqual({ major: 259, minor: 65537 });
});

test("deviceNumber() tells character devices", () => {
  expect(deviceNumber("/dev/null")).toEqual({ type: "c", major: 1, minor: 3 });
});

test("deviceNumber() throws for what is no device", () => {
  expect(() => deviceNumber("/")).toThrow('Cannot use "/": it is no device');
  expect(() => deviceNumber("/nowhere")).toThrow('Cannot find device "/nowhere"');
});
