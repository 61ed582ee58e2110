import { describe, expect, test } from "bun:test";
import type { Spec } from "#oci/runtime-spec.ts";
import { buildBundleSpec, sharesPids } from "#runtime/virt-container/bundle-spec.ts";

const MIB = 1024 * 1024;
const resources = { rootPath: "/run/kata-containers/c/rootfs", mounts: [], specDevices: [] };
const config: Spec = {
  ociVersion: "1.0.2",
  process: { args: ["sh"], cwd: "/", user: { uid: 1, gid: 2 }, apparmorProfile: "p", selinuxLabel: "l" },
  root: { path: "rootfs", readonly: true },
  annotations: { a: "b" },
  linux: {
    cgroupsPath: "/kubepods/x",
    mountLabel: "m",
    namespaces: [
      { type: "pid" },
      { type: "network", path: "/run/netns/x" },
      { type: "mount" },
      { type: "ipc", path: "/proc/7/ns/ipc" },
    ],
    devices: [{ type: "c", path: "/dev/fuse", major: 10, minor: 229 }],
    resources: {
      devices: [{ allow: false, access: "rwm" }],
      memory: { limit: 64 * MIB, swap: 64 * MIB, swappiness: 10 },
      cpu: { shares: 512, quota: 50_000, period: 100_000, cpus: "7-8", mems: "1" },
      pids: { limit: 100 },
      hugepageLimits: [{ pageSize: "2MB", limit: 0 }],
      unified: { "memory.high": "1" },
    },
  },
};

describe("buildBundleSpec()", () => {
  test("keeps what makes sense in a guest", () => {
    const spec = buildBundleSpec("c", config, resources, 192 * MIB);
    expect(spec.root).toEqual({ path: resources.rootPath, readonly: true });
    expect(spec.process).toEqual({ args: ["sh"], cwd: "/", user: { uid: 1, gid: 2 } });
    expect(spec.annotations).toEqual({ a: "b" });
    expect(spec.linux?.devices).toEqual([]);
    expect(spec.linux).not.toHaveProperty("mountLabel");
    expect(spec.linux).toMatchObject({
      cgroupsPath: "/hako/c",
      namespaces: [{ type: "pid" }, { type: "mount" }, { type: "ipc" }],
      resources: {
        memory: { limit: 64 * MIB },
        cpu: { shares: 512, quota: 50_000, period: 100_000 },
        pids: { limit: 100 },
      },
    });
    expect(Object.keys(spec.linux?.resources ?? {}).sort()).toEqual(["cpu", "devices", "memory", "pids"]);
    expect(spec.linux?.resources?.cpu).not.toHaveProperty("cpus");
  });

  test("a container cannot have more than the machine, and has limits of its own in any case", () => {
    const limit = (memory: object) =>
      buildBundleSpec("c", { ...config, linux: { resources: { memory } } }, resources, 192 * MIB).linux
        ?.resources?.memory?.limit;
    expect(limit({})).toBe(192 * MIB);
    expect(limit({ limit: -1 })).toBe(192 * MIB);
    expect(limit({ limit: 1024 * MIB })).toBe(192 * MIB);
  });

  test("all devices stay all devices, as privileged containers ask", () => {
    const devices = [{ allow: true, access: "rwm" }];
    const spec = buildBundleSpec("c", { ...config, linux: { resources: { devices } } }, resources, MIB);
    expect(spec.linux?.resources?.devices).toEqual([{ allow: true, access: "rwm" }]);
  });

  test("a configuration without a process is refused", () => {
    const { process: _, ...rest } = config;
    expect(() => buildBundleSpec("c", rest, resources, MIB)).toThrow("no process");
  });
});

test("process ids are shared when the pod's first container is named", () => {
  expect(sharesPids(config)).toBe(false);
  expect(sharesPids({ ...config, linux: { namespaces: [{ type: "pid", path: "/proc/7/ns/pid" }] } })).toBe(
    true,
  );
});
