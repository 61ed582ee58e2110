import { describe, expect, test } from "bun:test";
import { cgroupComponents, cgroupResources, deviceRules } from "#agent/container-resources.ts";
import { Linux, LinuxResources } from "#proto/oci.ts";

describe("cgroupComponents()", () => {
  test("paths, systemd's form and the default", () => {
    expect(cgroupComponents("/kubepods/pod1/c1", "c1")).toEqual(["kubepods", "pod1", "c1"]);
    expect(cgroupComponents("system.slice:kata:c1", "c1")).toEqual(["system.slice", "kata-c1.scope"]);
    expect(cgroupComponents(":kata:c1", "c1")).toEqual(["system.slice", "kata-c1.scope"]);
    expect(cgroupComponents("", "c1")).toEqual(["hako", "c1"]);
    expect(cgroupComponents("/", "c1")).toEqual(["hako", "c1"]);
  });

  test("anything that could lead elsewhere or clash with a control file is refused", () => {
    const wrong = [
      "/../x",
      "/a/./b",
      "/a/..",
      "/cgroup.procs/x",
      "/memory.max",
      "/a b",
      `/${"x".repeat(300)}`,
      "/.x",
    ];
    for (const path of [...wrong, "/a".repeat(17), "/a\0"]) {
      expect(() => cgroupComponents(path, "c1")).toThrow("Cannot use cgroup path");
    }
  });
});

describe("cgroupResources()", () => {
  test("fields find their place", () => {
    const resources = LinuxResources.fromPartial({
      CPU: { Shares: 2n, Cpus: "0" },
      Memory: { Limit: 5n, Swap: -1n },
      Pids: { Limit: 3n },
      BlockIO: { Weight: 100, ThrottleReadBpsDevice: [{ Major: 8n, Minor: 0n, Rate: 1n }] },
      HugepageLimits: [{ Pagesize: "2MB", Limit: 1n }],
    });
    expect(cgroupResources(resources)).toMatchObject({
      cpu: { shares: 2n, cpus: "0", quota: 0n },
      memory: { limit: 5n, swap: -1n, disableOomKiller: false },
      pids: { limit: 3n },
      io: { weight: 100, readBytes: [{ major: 8n, minor: 0n, rate: 1n }], writeBytes: [] },
      hugetlb: [{ pageSize: "2MB", limit: 1n }],
    });
  });

  test("nothing asked for is nothing", () => {
    expect(cgroupResources(LinuxResources.fromPartial({}))).toEqual({});
  });

  test("network marks are refused", () => {
    expect(() => cgroupResources(LinuxResources.fromPartial({ Network: { ClassID: 1 } }))).toThrow(
      "network traffic",
    );
  });
});

describe("deviceRules()", () => {
  test("the container's rules come first, then the defaults, then its own nodes", () => {
    const linux = Linux.fromPartial({
      Resources: {
        Devices: [
          { Allow: false, Access: "rwm" },
          { Allow: true, Type: "c", Major: 10n, Minor: -1n },
        ],
      },
      Devices: [
        { Path: "/dev/fuse", Type: "c", Major: 10n, Minor: 229n },
        { Path: "/dev/p", Type: "p" },
      ],
    });
    const rules = deviceRules(linux);
    expect(rules[0]).toEqual({ allow: false, access: "rwm", type: "a" });
    expect(rules[1]).toEqual({ allow: true, access: "rwm", type: "c", major: 10 });
    expect(rules).toContainEqual({ allow: true, type: "c", major: 1, minor: 3, access: "rwm" });
    expect(rules.at(-1)).toEqual({ allow: true, type: "c", access: "rwm", major: 10, minor: 229 });
  });

  test("an unknown type is refused", () => {
    const linux = Linux.fromPartial({ Resources: { Devices: [{ Allow: true, Type: "x" }] } });
    expect(() => deviceRules(linux)).toThrow("a device rule of type");
  });
});
