import { describe, expect, test } from "bun:test";
import { findCgroupLayout, resolveCgroupPath } from "#linux/cgroup/host/layout.ts";
import { parseMountTable } from "#linux/mount.ts";

const line = (point: string, type: string, options: string) =>
  `1 0 0:1 / ${point} rw - ${type} ${type} ${options}`;

describe("findCgroupLayout()", () => {
  test("version 2", () => {
    const mounts = parseMountTable(line("/sys/fs/cgroup", "cgroup2", "rw,nsdelegate"));
    expect(findCgroupLayout(mounts)).toEqual({ unified: "/sys/fs/cgroup", legacy: [] });
  });

  test("version 1 and hybrid", () => {
    const legacy = [
      line("/sys/fs/cgroup/cpu,cpuacct", "cgroup", "rw,cpu,cpuacct"),
      line("/sys/fs/cgroup/systemd", "cgroup", "rw,xattr,name=systemd"),
    ];
    const expected = [
      { controllers: ["cpu", "cpuacct"], directory: "/sys/fs/cgroup/cpu,cpuacct" },
      { controllers: ["name=systemd"], directory: "/sys/fs/cgroup/systemd" },
    ];
    expect(findCgroupLayout(parseMountTable(legacy.join("\n")))).toEqual({ legacy: expected });
    const hybrid = [...legacy, line("/sys/fs/cgroup/unified", "cgroup2", "rw")].join("\n");
    expect(findCgroupLayout(parseMountTable(hybrid))).toEqual({
      unified: "/sys/fs/cgroup/unified",
      legacy: expected,
    });
  });

  test("a host without any", () => {
    expect(() => findCgroupLayout([])).toThrow(expect.objectContaining({ code: "FAILED_PRECONDITION" }));
  });
});

describe("resolveCgroupPath()", () => {
  test.each([
    ["/kubepods/pod1/c1", "/kubepods/pod1/c1"],
    ["hako/c1", "/hako/c1"],
    ["system.slice:docker:c1", "/system.slice/docker-c1.scope"],
    [":cri-containerd:c1", "/system.slice/cri-containerd-c1.scope"],
    [
      "kubepods-burstable-pod1.slice:cri-containerd:c1",
      "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-containerd-c1.scope",
    ],
    ["a.slice::b.slice", "/a.slice/b.slice"],
    ["-.slice::c1", "/c1.scope"],
  ])("%s is %s", (text, path) => {
    if (text === "-.slice::c1") return expect(() => resolveCgroupPath(text)).toThrow("as a slice");
    expect(resolveCgroupPath(text)).toBe(path);
  });

  test.each(["/a/../b", "/a//b", "/", "a..slice/x:y:z", "a--b.slice:x:y", "no-slice:x:y"])(
    "%s is refused",
    (text) => {
      expect(() => resolveCgroupPath(text)).toThrow(expect.objectContaining({ code: "INVALID_ARGUMENT" }));
    },
  );
});
