import { describe, expect, test } from "bun:test";
import { RuntimeInfo } from "#proto/containerd/types.ts";
import { childEnvironment, readEnvironment } from "#shim/environment.ts";
import { checkIdentifier, parseFlags } from "#shim/flags.ts";
import { runtimeInfo, runtimeName } from "#shim/info.ts";
import { formatAddress } from "#shim/start.ts";

const needed = ["-namespace", "k8s.io", "-id", "pod-1"];

describe("parseFlags()", () => {
  test("reads Go's forms of a flag and the word behind", () => {
    const words = [
      ...needed,
      "--address=/run/c.sock",
      "-publish-binary",
      "/bin/containerd",
      "-debug",
      "start",
    ];
    expect(parseFlags(words)).toEqual({
      namespace: "k8s.io",
      id: "pod-1",
      address: "/run/c.sock",
      publishBinary: "/bin/containerd",
      bundle: "",
      debug: true,
      adopt: "no",
      action: "start",
    });
    expect(parseFlags([...needed, "-bundle", "/b", "delete"])).toMatchObject({
      bundle: "/b",
      action: "delete",
      debug: false,
    });
    expect(parseFlags(needed).action).toBe("");
  });

  test("asks for nothing where only something is printed", () => {
    expect(parseFlags(["-info"]).print).toBe("info");
    expect(parseFlags(["-v"]).print).toBe("version");
    expect(parseFlags(["--help"]).print).toBe("help");
  });

  for (const [words, message] of [
    [["-id", "x"], /"-namespace" is missing/],
    [["-namespace", "x"], /"-id" is missing/],
    [[...needed, "-nonsense"], /Unknown flag "-nonsense"/],
    [[...needed, "restart"], /Unknown command "restart"/],
    [["-namespace"], /has no value/],
    [["-namespace", "a/b", "-id", "x"], /Cannot use "a\/b"/],
  ] as const) {
    test(`refuses ${words.join(" ")}`, () => expect(() => parseFlags(words)).toThrow(message));
  }

  test("ids are containerd's, so none can leave a directory", () => {
    for (const good of ["a", "A-b_c.d", "0".repeat(76)]) expect(checkIdentifier(good, "id")).toBe(good);
    for (const bad of ["", ".", "..", "a/b", "-a", "a-", "a--b", "a b", "ä", "0".repeat(77), "a\n"]) {
      expect(() => checkIdentifier(bad, "id")).toThrow("Cannot use");
    }
  });
});

describe("the environment", () => {
  test("tells where events go and which protocol is known", () => {
    expect(readEnvironment({})).toEqual({ ttrpcAddress: undefined, maxShimVersion: 2 });
    expect(readEnvironment({ TTRPC_ADDRESS: "/t", MAX_SHIM_VERSION: "3" })).toEqual({
      ttrpcAddress: "/t",
      maxShimVersion: 3,
    });
    expect(readEnvironment({ MAX_SHIM_VERSION: "many" }).maxShimVersion).toBe(2);
  });

  test("of a child has nothing that could steer it", () => {
    const env = {
      PATH: "/bin",
      TTRPC_ADDRESS: "/t",
      HAKO_RUN_DIR: "/r",
      BUN_OPTIONS: "--preload x",
      NODE_OPTIONS: "y",
      LD_PRELOAD: "z",
      SECRET: "s",
    };
    expect(childEnvironment(env)).toEqual({ PATH: "/bin", TTRPC_ADDRESS: "/t", HAKO_RUN_DIR: "/r" });
  });
});

test("start prints the bare address, or JSON for a containerd that knows version 3", () => {
  expect(formatAddress("unix:///s", 2)).toBe("unix:///s");
  expect(JSON.parse(formatAddress("unix:///s", 3))).toEqual({
    version: 3,
    address: "unix:///s",
    protocol: "ttrpc",
  });
});

test("the runtime's name follows that of the program", () => {
  expect(runtimeName("containerd-shim-kata-v2")).toBe("io.containerd.kata.v2");
  expect(runtimeName("hako")).toBe("io.containerd.hako.v2");
  expect(RuntimeInfo.decode(runtimeInfo("io.containerd.hako.v2"))).toMatchObject({
    name: "io.containerd.hako.v2",
  });
});
