import { describe, expect, test } from "bun:test";
import { adjustCapabilities, CAPABILITIES, DEFAULT_CAPABILITIES } from "#oci/capability.ts";
import {
  buildProcess,
  buildSpec,
  type ContainerOptions,
  mergeEnv,
  type ProcessOptions,
} from "#oci/spec-builder.ts";

const options: ProcessOptions = {
  env: [],
  command: [],
  terminal: false,
  capAdd: [],
  capDrop: [],
  noNewPrivileges: false,
};

const containerOptions: ContainerOptions = {
  ...options,
  id: "c1",
  hostname: "box",
  rootPath: "/root/of/c1",
  readOnlyRoot: false,
  mounts: [],
};

describe("the command", () => {
  const image = { Entrypoint: ["/entry", "-x"], Cmd: ["a", "b"] };
  const args = (changes: Partial<ProcessOptions>, of: object = image) =>
    buildProcess(of, { ...options, ...changes }).args;

  test("is the image's entry point and Cmd", () => {
    expect(args({})).toEqual(["/entry", "-x", "a", "b"]);
    expect(args({}, { Cmd: ["sh"] })).toEqual(["sh"]);
    expect(args({}, { Entrypoint: ["/e"] })).toEqual(["/e"]);
  });

  test("given words replace Cmd only", () => {
    expect(args({ command: ["c"] })).toEqual(["/entry", "-x", "c"]);
  });

  test("a given entry point replaces both", () => {
    expect(args({ entrypoint: ["/new"] })).toEqual(["/new"]);
    expect(args({ entrypoint: ["/new"], command: ["c"] })).toEqual(["/new", "c"]);
    expect(args({ entrypoint: [], command: ["c"] })).toEqual(["c"]);
  });

  test("must be there", () => {
    expect(() => args({}, {})).toThrow("No command");
    expect(() => args({ entrypoint: [] })).toThrow("No command");
    expect(() => args({ command: [""] }, {})).toThrow("No command");
  });
});

describe("the environment", () => {
  test("ours wins over the image's, which wins over the defaults", () => {
    const { env } = buildProcess(
      { Cmd: ["x"], Env: ["PATH=/image", "A=image", "B=image"] },
      { ...options, env: ["A=mine", "C="], terminal: true },
      ["HOSTNAME=box"],
    );
    expect(env).toEqual(["PATH=/image", "HOSTNAME=box", "TERM=xterm", "A=mine", "B=image", "C="]);
  });

  test("has a search path even when nobody set one", () => {
    expect(buildProcess({ Cmd: ["x"] }, options).env).toEqual([
      "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ]);
  });

  test("a value may have equals signs, a name may not be missing", () => {
    expect(mergeEnv(["A=b=c"])).toEqual(["A=b=c"]);
    expect(() => mergeEnv(["=x"])).toThrow('"=x" is not NAME=value');
    expect(() => mergeEnv(["x"])).toThrow('"x" is not NAME=value');
  });
});

describe("the working directory", () => {
  test("is ours, the image's, or the root", () => {
    const cwd = (image: object, workingDir?: string) =>
      buildProcess({ Cmd: ["x"], ...image }, workingDir === undefined ? options : { ...options, workingDir })
        .cwd;
    expect(cwd({ WorkingDir: "/srv" }, "/tmp")).toBe("/tmp");
    expect(cwd({ WorkingDir: "/srv" })).toBe("/srv");
    expect(cwd({ WorkingDir: "" })).toBe("/");
    expect(cwd({})).toBe("/");
    expect(() => cwd({}, "tmp")).toThrow('"tmp" is not an absolute path');
  });
});

describe("buildSpec()", () => {
  test("isolates all but the network, which belongs to the machine", () => {
    const { linux } = buildSpec({ Cmd: ["x"] }, containerOptions);
    expect(linux?.namespaces?.map(({ type }) => type)).toEqual(["pid", "mount", "ipc", "uts", "cgroup"]);
    expect(linux?.cgroupsPath).toBe("/hako/c1");
    expect(linux).not.toHaveProperty("seccomp");
    expect(linux?.maskedPaths).toContain("/proc/kcore");
    expect(linux?.readonlyPaths).toContain("/proc/sys");
  });

  test("opens no device but the harmless ones", () => {
    const rules = buildSpec({ Cmd: ["x"] }, containerOptions).linux?.resources?.devices ?? [];
    expect(rules[0]).toEqual({ allow: false, access: "rwm" });
    expect(rules.slice(1).every((rule) => rule.allow && rule.type !== "a")).toBe(true);
    expect(rules.filter((rule) => rule.access === "rwm" && rule.major === undefined && rule.allow)).toEqual(
      [],
    );
  });

  test("passes limits and mounts on", () => {
    const mount = { destination: "/data", type: "bind", source: "/x", options: ["ro"] };
    const spec = buildSpec(
      { Cmd: ["x"] },
      { ...containerOptions, mounts: [mount], memoryLimit: 1 << 20, cpus: 1.5 },
    );
    expect(spec.mounts?.at(-1)).toEqual(mount);
    expect(spec.mounts?.map(({ destination }) => destination)).toContain("/dev/pts");
    expect(spec.linux?.resources).toMatchObject({
      memory: { limit: 1 << 20 },
      cpu: { quota: 150_000, period: 100_000 },
    });
  });
});

describe("adjustCapabilities()", () => {
  test("takes any spelling", () => {
    expect(adjustCapabilities(["net_admin"], ["CAP_CHOWN", "Kill"])).toEqual(
      CAPABILITIES.filter(
        (name) =>
          name === "CAP_NET_ADMIN" ||
          (DEFAULT_CAPABILITIES.includes(name) && !["CAP_CHOWN", "CAP_KILL"].includes(name)),
      ),
    );
  });

  test("knows all, and an added one wins", () => {
    expect(adjustCapabilities(["ALL"], [])).toEqual([...CAPABILITIES]);
    expect(adjustCapabilities([], ["all"])).toEqual([]);
    expect(adjustCapabilities(["CHOWN"], ["ALL"])).toEqual(["CAP_CHOWN"]);
  });

  test("refuses what there is not", () => {
    expect(() => adjustCapabilities(["FLY"], [])).toThrow('Unknown capability "FLY" for --cap-add');
    expect(() => adjustCapabilities([], ["FLY"])).toThrow("--cap-drop");
  });

  test("gives nothing to inherit", () => {
    const { capabilities } = buildProcess({ Cmd: ["x"] }, options);
    expect(capabilities?.inheritable).toEqual([]);
    expect(capabilities?.ambient).toEqual([]);
    expect(capabilities?.bounding).toEqual(capabilities?.permitted);
  });
});
