import { expect, test } from "bun:test";
import { crc32c } from "#image/erofs/crc32c.ts";

test("crc32c() gives the check value of the Castagnoli polynomial", () => {
  expect((crc32c(0xffff_ffff, Buffer.from("123456789")) ^ 0xffff_ffff) >>> 0).toBe(0xe3069283);
});

test("crc32c() of 32 zero bytes is the test vector of RFC 3720", () => {
  expect((crc32c(0xffff_ffff, new Uint8Array(32)) ^ 0xffff_ffff) >>> 0).toBe(0x8a9136aa);
});
