import { expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { claimGuestCid } from "#linux/vhost-vsock.ts";

test("a host without vhost-vsock is told apart from one with something else in its place", () => {
  const open = () => readdirSync("/proc/self/fd").length;
  const before = open();
  expect(() => claimGuestCid("/nonexistent/vhost-vsock")).toThrow('Cannot open "/nonexistent/vhost-vsock"');
  expect(() => claimGuestCid("/dev/null")).toThrow("Cannot claim a vsock context id: ENOTTY");
  expect(open()).toBe(before);
});
