import { describe, expect, test } from "bun:test";
import { placeNamespaces } from "#agent/shared-namespaces.ts";
import { maskHas } from "#agent/signal-mask.ts";

const own = (Type: string) => ({ Type, Path: "" });

describe("placeNamespaces()", () => {
  test("a pid namespace is always there, once, and paths for shared kinds are the agent's business", () => {
    const given = [
      own("mount"),
      { Type: "ipc", Path: "/proc/1/ns/ipc" },
      { Type: "pid", Path: "/x" },
      own("pid"),
      own("time"),
    ];
    expect(placeNamespaces(given, undefined, false)).toEqual([
      own("mount"),
      own("ipc"),
      own("time"),
      own("pid"),
    ]);
  });

  test("paths of other kinds, unknown kinds and a missing mount namespace are refused", () => {
    expect(() =>
      placeNamespaces([{ Type: "network", Path: "/run/netns/x" }, own("mount")], undefined, false),
    ).toThrow("it is not of this guest");
    expect(() => placeNamespaces([own("mount"), own("clock")], undefined, false)).toThrow('of type "clock"');
    expect(() => placeNamespaces([own("pid")], undefined, false)).toThrow("without a mount namespace");
  });
});

describe("maskHas()", () => {
  const status =
    "SigQ:\t0/1\nSigPnd:\tffffffffffffffff\nSigBlk:\t0000000000000001\nSigIgn:\t0000000000000004\nSigCgt:\t8000000000004000\n";

  test("looks at blocked, ignored and caught signals only", () => {
    const known = [1, 2, 3, 15, 64].filter((signal) => maskHas(status, signal));
    expect(known).toEqual([1, 3, 15, 64]);
  });
});
