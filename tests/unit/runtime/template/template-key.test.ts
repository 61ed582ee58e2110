import { expect, test } from "bun:test";
import { type TemplateParts, templateKey } from "#runtime/template/template-key.ts";

const parts: TemplateParts = {
  driver: "builtin",
  assets: "a",
  kernel: "",
  kernelParams: ["quiet"],
  vcpus: 1,
  maxVcpus: 1,
  memoryMib: 256,
  maxMemoryMib: 256,
};
const cpu = (more = "", mhz = "2000.0") =>
  `processor : 0\nvendor_id : X\nmodel : 1\ncpu MHz : ${mhz}\nflags : fpu sse${more}\n\nprocessor : 1\nflags : other\n`;

test("the key depends on every part and on what the processor can do", () => {
  const changes: TemplateParts[] = [
    { ...parts, driver: "qemu" },
    { ...parts, assets: "b" },
    { ...parts, kernel: "/boot/x" },
    { ...parts, kernelParams: ["quiet", "x"] },
    { ...parts, vcpus: 2 },
    { ...parts, maxVcpus: 2 },
    { ...parts, memoryMib: 512 },
    { ...parts, maxMemoryMib: 512 },
  ];
  const keys = [parts, ...changes].map((change) => templateKey(change, cpu()));
  keys.push(templateKey(parts, cpu(" avx")));
  expect(new Set(keys).size).toBe(keys.length);
  expect(keys.every((key) => /^[0-9a-f]{32}$/.test(key))).toBe(true);
});

test("the key does not depend on what changes by itself: the clock's frequency, other processors", () => {
  expect(templateKey(parts, cpu("", "3100.5"))).toBe(templateKey(parts, cpu()));
});

test("the host's own description gives a stable key", () => {
  expect(templateKey(parts)).toBe(templateKey({ ...parts }));
});
