import { describe, expect, test } from "bun:test";
import {
  addressFamily,
  decodeAddress,
  encodeAddress,
  formatNetwork,
  parseNetwork,
} from "#linux/netlink/ip-address.ts";
import { decodeMac, encodeMac } from "#linux/netlink/mac-address.ts";

const pairs: [text: string, hex: string, canonical?: string][] = [
  ["0.0.0.0", "00000000"],
  ["10.0.2.255", "0a0002ff"],
  ["::", "00000000000000000000000000000000"],
  ["::1", "00000000000000000000000000000001"],
  ["fe80::", "fe800000000000000000000000000000"],
  ["2001:db8::ff00:42:8329", "20010db8000000000000ff0000428329"],
  ["1:2:3:4:5:6:7:8", "00010002000300040005000600070008"],
  ["2001:db8:0:1:1:1:1:1", "20010db8000000010001000100010001"],
  ["2001:0:0:1:0:0:0:1", "20010000000000010000000000000001", "2001:0:0:1::1"],
  ["2001:DB8::A", "20010db800000000000000000000000a", "2001:db8::a"],
  ["::ffff:192.0.2.1", "00000000000000000000ffffc0000201", "::ffff:c000:201"],
];

describe("IP addresses", () => {
  test.each(pairs)("%s", (text, hex, canonical = text) => {
    expect(encodeAddress(text).toString("hex")).toBe(hex);
    expect(decodeAddress(Buffer.from(hex, "hex"))).toBe(canonical);
  });

  test.each(["", "1.2.3", "1.2.3.256", "01.2.3.4x", "::1%lo", "1::2::3", "12345::", "host", "10.0.0.1/8"])(
    "%p is refused",
    (text) => {
      expect(() => addressFamily(text)).toThrow("as an IP address");
      expect(() => encodeAddress(text)).toThrow();
    },
  );

  test("bytes of another length are refused", () => {
    expect(() => decodeAddress(new Uint8Array(5))).toThrow("5 bytes");
  });

  test("networks are read and written", () => {
    expect(parseNetwork("10.0.0.5/24")).toEqual({ address: "10.0.0.5", prefixLength: 24 });
    expect(parseNetwork("fd00::/0")).toEqual({ address: "fd00::", prefixLength: 0 });
    expect(parseNetwork("10.0.0.5")).toEqual({ address: "10.0.0.5", prefixLength: 32 });
    expect(formatNetwork(parseNetwork("fd00::5"))).toBe("fd00::5/128");
    for (const bad of [
      "10.0.0.5/33",
      "10.0.0.5/",
      "10.0.0.5/-1",
      "10.0.0.5/1/2",
      "fd00::/129",
      "/24",
      "::1/x",
    ]) {
      expect(() => parseNetwork(bad)).toThrow();
    }
  });
});

describe("hardware addresses", () => {
  test("are read and written", () => {
    expect(encodeMac("02:00:5E:00:53:ff").toString("hex")).toBe("02005e0053ff");
    expect(decodeMac(Buffer.from("02005e0053ff", "hex"))).toBe("02:00:5e:00:53:ff");
    expect(decodeMac(new Uint8Array(0))).toBeUndefined();
    for (const bad of ["", "02:00:5e:00:53", "02-00-5e-00-53-01", "02:00:5e:00:53:0g"]) {
      expect(() => encodeMac(bad)).toThrow("as a hardware address");
    }
  });
});
