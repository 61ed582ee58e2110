import { describe, expect, test } from "bun:test";
import { parseArguments } from "#cli/arguments.ts";
import { command } from "#cli/run.ts";
import { parseEnv, parseRunRequest, type RunRequest } from "#cli/run-request.ts";

function parse(...words: string[]): RunRequest {
  return parseRunRequest(parseArguments(command, words), "/home/me", { FROM_HOST: "yes" });
}

describe("parseRunRequest()", () => {
  test("fills in what was not said", () => {
    const { sandbox, container } = parse("oci:busybox");
    expect(sandbox.id).toMatch(/^[0-9a-f]{64}$/);
    expect(container.id).toBe(sandbox.id);
    expect(sandbox.hostname).toBe(sandbox.id.slice(0, 12));
    expect(sandbox.name).toMatch(/^[a-z]+-[a-z]+-\d+$/);
    expect(sandbox).toMatchObject({ network: "none", detached: false, autoRemove: false });
    expect(container.seccomp).toEqual({ kind: "default" });
    expect(container).not.toHaveProperty("user");
    expect(sandbox).not.toHaveProperty("memoryMib");
  });

  test("everything after the image belongs to the container", () => {
    const { container } = parse("--rm", "oci:busybox", "ls", "--rm", "-e");
    expect(container.image).toBe("oci:busybox");
    expect(container.process.command).toEqual(["ls", "--rm", "-e"]);
  });

  test("sizes the machine", () => {
    const { sandbox, container } = parse("--cpus", "1.5", "--memory", "1g", "i");
    expect(sandbox).toMatchObject({ vcpus: 2, memoryMib: 1024 });
    expect(container.cpus).toBe(1.5);
    expect(() => parse("--memory", "64m", "i")).toThrow(
      "--memory 64m is too small: the virtual machine needs at least 128m",
    );
    expect(() => parse("--memory", "lots", "i")).toThrow('Cannot read size "lots"');
    expect(() => parse("--cpus", "0", "i")).toThrow("--cpus 0 is not a number of CPUs");
    expect(() => parse("--cpus", "-1", "i")).toThrow("--cpus -1 is not a number of CPUs");
  });

  test("the network is one of four kinds", () => {
    for (const mode of ["none", "tap", "nat", "netns:/run/netns/a"])
      expect(parse("--net", mode, "i").sandbox.network as string).toBe(mode);
    for (const mode of ["bridge", "netns:", "netns:a", "host"])
      expect(() => parse("--net", mode, "i")).toThrow(`--net "${mode}": use none, tap, nat or netns:/PATH`);
  });

  test("volumes are absolute on both sides", () => {
    const { container } = parse("-v", "./a:/b", "-v", "/c/../d:/e/:ro", "i");
    expect(container.volumes).toEqual([
      { hostPath: "/home/me/a", guestPath: "/b", readOnly: false },
      { hostPath: "/d", guestPath: "/e", readOnly: true },
    ]);
  });

  test.each([
    ["data:/b", 'write "./data" for a path'],
    ["/a", "use HOST:GUEST"],
    ["/a:b", '"b" is not an absolute path'],
    ["/a:/", '"/" is not an absolute path below'],
    ["/a:/b:rx", 'mode "rx" is neither ro nor rw'],
    ["/a:/b:ro:z", "use HOST:GUEST"],
  ])("refuses volume %p", (text, problem) => {
    expect(() => parse("-v", text, "i")).toThrow(problem);
  });

  test("security options", () => {
    const of = (...words: string[]) =>
      parse(...words.flatMap((word) => ["--security-opt", word]), "i").container;
    expect(of("seccomp=unconfined").seccomp).toEqual({ kind: "unconfined" });
    expect(of("seccomp=p.json").seccomp).toEqual({ kind: "file", path: "/home/me/p.json" });
    expect(of("no-new-privileges").process.noNewPrivileges).toBe(true);
    expect(of("no-new-privileges=false").process.noNewPrivileges).toBe(false);
    expect(() => of("apparmor=x")).toThrow('--security-opt "apparmor=x"');
  });

  test("an empty entry point clears the image's", () => {
    expect(parse("--entrypoint", "", "i").container.process.entrypoint).toEqual([]);
    expect(parse("--entrypoint", "/bin/sh", "i").container.process.entrypoint).toEqual(["/bin/sh"]);
    expect(parse("i").container.process).not.toHaveProperty("entrypoint");
  });

  test("refuses a name that cannot be part of a path", () => {
    expect(() => parse("--name", "a/b", "i")).toThrow("container name");
    expect(() => parse("--name", "..", "i")).toThrow("container name");
  });

  test("survives the way to another process", () => {
    const request = parse("-it", "--name", "n", "-u", "1:2", "-e", "A=b", "i", "x");
    expect(JSON.parse(JSON.stringify(request))).toEqual(request);
  });
});

describe("parseEnv()", () => {
  test("takes values from our environment where none is given", () => {
    expect(parseEnv(["A=1", "FROM_HOST", "NOT_THERE", "E="], { FROM_HOST: "yes" })).toEqual([
      "A=1",
      "FROM_HOST=yes",
      "E=",
    ]);
    expect(() => parseEnv(["=x"], {})).toThrow("has no name");
  });
});
