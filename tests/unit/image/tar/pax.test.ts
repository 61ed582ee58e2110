import { expect, test } from "bun:test";
import { parseDecimal, parsePaxRecords, parsePaxTime } from "#image/tar/pax.ts";
import { paxRecords } from "../../../support/tar.ts";

test("parsePaxRecords() reads values with any bytes, in their order", () => {
  const bytes = Buffer.concat([
    paxRecords({ path: "a/b" }),
    paxRecords({ "SCHILY.xattr.user.x": Buffer.from([0, 10, 61, 255]) }),
    paxRecords({ path: "" }),
  ]);
  expect(parsePaxRecords(bytes)).toEqual([
    ["path", "a/b"],
    ["SCHILY.xattr.user.x", "\0\n=\xff"],
    ["path", ""],
  ]);
});

test("parsePaxRecords() gives undefined for anything malformed", () => {
  const malformed = [
    "9 a=b\n",
    "5 a=b",
    "99999999999 a=b\n",
    "6 =bc\n",
    "6 abcd",
    " a=b\n",
    "-6 a=b\n",
    "6  a=b\n1",
    "0 a=b\n",
    "3 a\n",
    "6\na=b\n",
  ];
  for (const text of malformed) expect(parsePaxRecords(Buffer.from(text))).toBeUndefined();
});

test("parsePaxRecords() allows NULs behind the records and nothing else", () => {
  expect(parsePaxRecords(Buffer.from("6 a=b\n\0\0\0"))).toEqual([["a", "b"]]);
  expect(parsePaxRecords(Buffer.from("6 a=b\n\0\0x"))).toBeUndefined();
});

test("parsePaxTime() keeps nanoseconds and rounds negative times down", () => {
  expect(parsePaxTime("1350244992.023960108")).toEqual({ seconds: 1350244992, nanoseconds: 23960108 });
  expect(parsePaxTime("-1.25")).toEqual({ seconds: -2, nanoseconds: 750_000_000 });
  expect(parsePaxTime("-3")).toEqual({ seconds: -3, nanoseconds: 0 });
  expect(parsePaxTime("5.")).toEqual({ seconds: 5, nanoseconds: 0 });
  expect(parsePaxTime("0.1234567899999")).toEqual({ seconds: 0, nanoseconds: 123456789 });
  for (const text of ["", "x", "1e5", "--1", "1.x"]) expect(parsePaxTime(text).seconds).toBeNaN();
});

test("parseDecimal() takes digits only", () => {
  expect(parseDecimal("0042")).toBe(42);
  for (const text of ["", "-1", "1.5", "0x10", "9".repeat(17), "9007199254740993"]) {
    expect(parseDecimal(text)).toBeNaN();
  }
});
