import { describe, expect, test } from "bun:test";
import { findHostNetworks, SubnetPool } from "#resource/network/subnet.ts";

describe("SubnetPool", () => {
  test("deals four addresses at a time", () => {
    const pool = new SubnetPool("10.251.0.0/16");
    expect(pool.size).toBe(16_384);
    expect(pool.subnet(0)).toEqual({
      hostAddress: "10.251.0.1",
      guestAddress: "10.251.0.2",
      prefixLength: 30,
    });
    expect(pool.subnet(64)).toEqual({
      hostAddress: "10.251.1.1",
      guestAddress: "10.251.1.2",
      prefixLength: 30,
    });
    expect(pool.subnet(pool.size - 1).guestAddress).toBe("10.251.255.254");
  });

  test("begins at the network's own address, also above 2^31", () => {
    expect(new SubnetPool("192.168.7.9/24").subnet(0).hostAddress).toBe("192.168.7.1");
    expect(new SubnetPool("10.0.0.4/30").size).toBe(1);
  });

  test.each(["10.0.0.0", "10.0.0.0/31", "10.0.0.0/7", "300.0.0.0/16", "ten/16", ""])("refuses %p", (text) => {
    expect(() => new SubnetPool(text)).toThrow(`Network pool "${text}" is not an IPv4 network`);
  });

  test("sees which subnets the host uses itself", () => {
    const pool = new SubnetPool("127.0.0.0/16");
    const networks = findHostNetworks();
    expect(networks).toContainEqual({ first: 0x7f000000, last: 0x7fffffff });
    expect(pool.isTaken(0, networks)).toBe(true);
    expect(new SubnetPool("203.0.113.0/24").isTaken(0, networks)).toBe(false);
  });
});
