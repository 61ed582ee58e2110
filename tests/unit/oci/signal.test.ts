import { describe, expect, test } from "bun:test";
import { parseSignal } from "#oci/signal.ts";

describe("parseSignal()", () => {
  test.each([
    ["SIGTERM", 15],
    ["term", 15],
    ["Kill", 9],
    ["1", 1],
    ["64", 64],
    ["SIGRTMIN", 34],
    ["SIGRTMIN+3", 37],
    ["RTMAX-1", 63],
  ])("%p is %p", (text, number) => {
    expect(parseSignal(text)).toBe(number);
  });

  test.each(["", "0", "65", "SIGNOPE", "SIGRTMIN+40", "-9", "9 ", "toString"])("refuses %p", (text) => {
    expect(() => parseSignal(text)).toThrow(`Unknown signal "${text}"`);
  });
});
