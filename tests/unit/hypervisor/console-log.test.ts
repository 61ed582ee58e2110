import { expect, test } from "bun:test";
import { ConsoleLog, printableText } from "#hypervisor/console-log.ts";

const KEPT = 64 * 1024;

test("ConsoleLog keeps the last 64 KiB however the bytes come", () => {
  for (const chunkSize of [1000, 4096, 65_536, 70_000, 200_000]) {
    const log = new ConsoleLog();
    const text = Array.from({ length: 60_000 }, (_, index) => `${index}`.padStart(7, "0")).join("\n");
    const bytes = Buffer.from(text);
    for (let at = 0; at < bytes.length; at += chunkSize) log.append(bytes.subarray(at, at + chunkSize));
    expect(log.tail()).toBe(text.slice(-KEPT));
    expect(log.tail(10)).toBe(text.slice(-10));
  }
});

test("ConsoleLog holds less than 64 KiB as it is", () => {
  const log = new ConsoleLog();
  expect(log.tail()).toBe("");
  log.append(Buffer.from("first\n"));
  log.append(Buffer.from("second"));
  expect(log.tail()).toBe("first\nsecond");
  expect(log.tail(0)).toBe("");
});

test("printableText() removes what would steer a terminal and keeps the text", () => {
  expect(printableText("a\u001b[31;1mred\u001b[0m\u001b]0;title\u0007 \u009bHome\u001bc\tz\r\nnext\r")).toBe(
    "ared Home\tz\nnext\n",
  );
  expect(printableText("箱 é \u{1f4e6}")).toBe("箱 é \u{1f4e6}");
  expect(printableText("\u0000\u0008\u007f\u001b")).toBe("");
});
