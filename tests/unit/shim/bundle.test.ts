import { describe, expect, test } from "bun:test";
import { podLimits } from "#runtime/pod-limits.ts";
import { sandboxKey, socketPath } from "#shim/address.ts";
import { parseConfig } from "#shim/bundle.ts";
import { containerType, imageName } from "#shim/container-type.ts";
import { rootfsSource } from "#shim/rootfs-mounts.ts";

describe("parseConfig()", () => {
  const config = (members: object) => JSON.stringify({ ociVersion: "1.0.2", ...members });

  test("passes what is sound", () => {
    expect(parseConfig(config({ process: { args: ["sh"], cwd: "/" }, hostname: "h" }), "c").hostname).toBe(
      "h",
    );
  });

  for (const [name, text, message] of [
    ["no JSON", "{", /is not JSON/],
    ["a list", "[]", /it is no object/],
    ["no version", "{}", /ociVersion/],
    ["a process that is a text", config({ process: "sh" }), /process is no object/],
    ["no arguments", config({ process: { cwd: "/", args: [] } }), /process.args/],
    ["a number among the arguments", config({ process: { cwd: "/", args: [1] } }), /process.args/],
    ["a relative directory", config({ process: { cwd: "x", args: ["a"] } }), /process.cwd/],
    ["mounts that are no list", config({ mounts: {} }), /mounts is no list/],
    ["a mount without a place", config({ mounts: [{}] }), /no destination/],
    ["an annotation that is no text", config({ annotations: { a: 1 } }), /annotation/],
  ] as const) {
    test(`refuses ${name}`, () => expect(() => parseConfig(text, "config.json")).toThrow(message));
  }
});

describe("containerType()", () => {
  test("follows containerd and CRI-O", () => {
    expect(containerType(undefined)).toEqual({ kind: "single" });
    expect(containerType({ "io.kubernetes.cri.container-type": "sandbox" })).toEqual({ kind: "sandbox" });
    expect(
      containerType({ "io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": "s" }),
    ).toEqual({ kind: "container", sandboxId: "s" });
    expect(containerType({ "io.kubernetes.cri-o.ContainerType": "sandbox" })).toEqual({ kind: "sandbox" });
    expect(
      containerType({
        "io.kubernetes.cri-o.ContainerType": "container",
        "io.kubernetes.cri-o.SandboxID": "s",
      }),
    ).toEqual({ kind: "container", sandboxId: "s" });
    expect(containerType({ "io.kubernetes.cri.container-type": "container" })).toEqual({ kind: "single" });
    expect(imageName({ "io.kubernetes.cri-o.ImageName": "i" })).toBe("i");
  });
});

describe("addresses", () => {
  test("are the digest of socket, namespace and sandbox, as containerd's shims have it", () => {
    const digest = new Bun.CryptoHasher("sha256")
      .update("/run/containerd/containerd.sock/k8s.io/pod")
      .digest("hex");
    expect(socketPath("/run/containerd/containerd.sock", "k8s.io", "pod")).toBe(
      `/run/containerd/s/${digest}`,
    );
  });

  test("of sandboxes do not meet across namespaces", () => {
    expect(sandboxKey("a", "x")).not.toBe(sandboxKey("b", "x"));
    const unique = "0123456789abcdef".repeat(4);
    expect(sandboxKey("a", unique)).toBe(unique);
  });
});

describe("rootfsSource()", () => {
  const mount = (type: string, source: string, options: string[] = []) => ({
    type,
    source,
    target: "",
    options,
  });

  test("takes the layers of an overlay, the uppermost first", () => {
    const options = ["index=off", "workdir=/w", "upperdir=/u", "lowerdir=/2:/1"];
    expect(rootfsSource([mount("overlay", "overlay", options)], "/b")).toEqual({
      kind: "layers",
      directories: ["/2", "/1"],
      upper: "/u",
    });
    expect(rootfsSource([mount("overlay", "overlay", ["lowerdir=/a\\:b:/c\\\\d"])], "/b")).toEqual({
      kind: "layers",
      directories: ["/a:b", "/c\\d"],
    });
  });

  test("takes directories and block devices", () => {
    expect(rootfsSource([], "/b/rootfs")).toEqual({ kind: "directory", path: "/b/rootfs" });
    expect(rootfsSource([mount("bind", "/d", ["rbind", "rw"])], "/b")).toEqual({
      kind: "directory",
      path: "/d",
    });
    expect(rootfsSource([mount("ext4", "/dev/mapper/x")], "/b")).toEqual({
      kind: "block",
      path: "/dev/mapper/x",
      fstype: "ext4",
      options: [],
    });
  });

  test("says what it does not know", () => {
    expect(() => rootfsSource([mount("fuse.nydus", "x")], "/b")).toThrow('type "fuse.nydus"');
    expect(() => rootfsSource([mount("bind", "/a"), mount("bind", "/b")], "/b")).toThrow("2 mounts");
    expect(() => rootfsSource([mount("overlay", "overlay", [])], "/b")).toThrow("lowerdir");
  });
});

describe("podLimits()", () => {
  const spec = (annotations: Record<string, string>, resources = {}) => ({
    ociVersion: "1",
    annotations,
    linux: { resources },
  });

  test("adds up what the pod's containers may use", () => {
    const annotations = {
      "io.kubernetes.cri.sandbox-cpu-quota": "250000",
      "io.kubernetes.cri.sandbox-cpu-period": "100000",
      "io.kubernetes.cri.sandbox-memory": String(512 * 1024 * 1024),
    };
    expect(podLimits(spec(annotations))).toEqual({ cpus: 2.5, memoryBytes: 512 * 1024 * 1024 });
  });

  test("takes a single container's limits; what is none is left out", () => {
    const resources = { cpu: { quota: 150000, period: 100000 }, memory: { limit: 64 * 1024 * 1024 } };
    expect(podLimits(spec({}, resources))).toEqual({ cpus: 1.5, memoryBytes: 64 * 1024 * 1024 });
    expect(podLimits(spec({}))).toEqual({});
    expect(podLimits(spec({}, { memory: { limit: 2 ** 62 }, cpu: { quota: -1, period: 100000 } }))).toEqual(
      {},
    );
    expect(podLimits(spec({ "io.kubernetes.cri.sandbox-memory": "much" }))).toEqual({});
  });
});
