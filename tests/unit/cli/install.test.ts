import { describe, expect, test } from "bun:test";
import { editContainerdConfig } from "#cli/install/containerd-section.ts";
import { lineDiff } from "#cli/install/line-diff.ts";
import { runtimeClass } from "#cli/install/pod-overhead.ts";

const edit = (text: string, wanted: "installed" | "removed" = "installed") =>
  editContainerdConfig(text, "c.toml", wanted);

describe("editContainerdConfig()", () => {
  const given = 'version = 2\n# mine\n[plugins."io.containerd.grpc.v1.cri"]\n  sandbox_image = "p"\n';

  test("adds a section, once, and takes it out to the byte", () => {
    const once = edit(given);
    expect(once.startsWith(given)).toBe(true);
    expect(Bun.TOML.parse(once)).toMatchObject({
      plugins: {
        "io.containerd.grpc.v1.cri": {
          sandbox_image: "p",
          containerd: { runtimes: { hako: { runtime_type: "io.containerd.hako.v2" } } },
        },
      },
    });
    expect(edit(once)).toBe(once);
    expect(edit(once, "removed")).toBe(given);
    expect(edit(given, "removed")).toBe(given);
  });

  test("knows the plug-in of version 3, makes a file where there is none, and keeps what comes behind", () => {
    expect(edit("version = 3\n")).toContain(
      '[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.hako]',
    );
    expect(edit("")).toStartWith("version = 2\n# BEGIN hako");
    const behind = `${edit(given)}[debug]\n  level = "debug"\n`;
    expect(edit(behind, "removed")).toBe(`${given}[debug]\n  level = "debug"\n`);
  });

  test("says why it cannot", () => {
    expect(() => edit("root = '/x'\n")).toThrow("version 1");
    expect(() => edit("version = \n")).toThrow(/"c.toml", line 1/);
    expect(() =>
      edit('version = 2\n[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.hako]\n'),
    ).toThrow("did not write");
    expect(() => edit('version = 2\nplugins = {"io.containerd.grpc.v1.cri" = {}}\n')).toThrow("c.toml");
    expect(() => edit(edit(given).replace("# END hako\n", ""))).toThrow("not its end");
  });
});

test("lineDiff() shows what changes with its surroundings", () => {
  expect(lineDiff("a\nb\nc\nd\n", "a\nb\nc\nnew\nd\n")).toBe("  b\n  c\n+ new\n  d\n\n");
  expect(lineDiff("a\n", "a\n")).toBe("");
  expect(lineDiff("", "x\n")).toBe("+ x\n\n");
});

test("the RuntimeClass carries what was measured", () => {
  const text = runtimeClass({ monitorMib: 100, shimMib: 20, milliCpus: 3 });
  expect(Bun.YAML.parse(text)).toEqual({
    apiVersion: "node.k8s.io/v1",
    kind: "RuntimeClass",
    metadata: { name: "hako" },
    handler: "hako",
    overhead: { podFixed: { memory: "120Mi", cpu: "10m" } },
  });
});
