import { expect } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { writeContainer } from "#agent/launcher/container-request.ts";
import { writeProcess } from "#agent/launcher/process-fields.ts";
import { RequestWriter } from "#agent/launcher/request-writer.ts";
import { FIELD, NO_FD } from "#agent/launcher/wire.ts";
import { Hooks } from "#proto/oci.ts";
import { Fd } from "#sys/fd.ts";
import { makeProcess, makeSpec, TemporaryDirectory } from "../support/container.ts";
import { testIf } from "../support/skip.ts";

const root = join(import.meta.dir, "../..");
const ROUNDS = 60_000;
const gccTest = testIf(Bun.which("gcc") !== null, "needs gcc");

/** One request with every kind of field, one of a process that joins. */
function seeds(): Buffer[] {
  const idMap = [{ ContainerID: 0, HostID: 100_000, Size: 65536 }];
  const everything = new RequestWriter();
  const spec = makeSpec(["sh", "-c", "true"], {
    readonly: true,
    hostname: "box",
    namespaces: [
      "mount",
      "user",
      "pid",
      "uts",
      "ipc",
      "time",
      { Type: "network", Path: "/proc/self/ns/net" },
    ],
    mounts: [
      { destination: "/data", source: "/srv", type: "bind", options: ["rbind", "rro", "rslave"] },
      { destination: "/map", source: "/srv", type: "bind", options: ["bind", "ridmap"] },
    ],
    process: {
      User: { UID: 1, GID: 2, AdditionalGids: [3, 4] },
      Rlimits: [{ Type: "RLIMIT_NOFILE", Soft: 1n, Hard: 2n }],
      IOPriority: { Class: "IOPRIO_CLASS_BE", Priority: 3 },
      Scheduler: { Policy: "SCHED_BATCH", Nice: 5 },
      ApparmorProfile: "strict",
    },
    linux: {
      UIDMappings: idMap,
      GIDMappings: idMap,
      Sysctl: { "net.ipv4.ip_forward": "1" },
      Devices: [{ Path: "/dev/fuse", Type: "c", Major: 10n, Minor: 229n, FileMode: 0o666, UID: 0, GID: 0 }],
      Personality: { Domain: "LINUX32", Flags: [] },
      TimeOffsets: { monotonic: { Secs: 5n, Nanosecs: 6 } },
      MaskedPaths: ["/proc/kcore"],
      ReadonlyPaths: ["/proc/sys"],
      Seccomp: { DefaultAction: "SCMP_ACT_ERRNO", Architectures: [], Flags: [], Syscalls: [] },
    },
  });
  const hook = { Path: "/hook", Args: ["hook", "a"], Env: ["A=b"], Timeout: 5n };
  spec.Hooks = Hooks.fromPartial({ CreateContainer: [hook], StartContainer: [hook, { Path: "/bare" }] });
  writeContainer(everything, {
    spec,
    rootfs: "/r",
    stdio: { stdin: 0, stdout: 1, stderr: 2 },
    hookSubject: { id: "c", bundle: "/b", annotations: { a: "b" } },
    sharedMounts: [{ pidfd: new Fd(0), source: "/a", target: "/b" }],
    hold: true,
  })[Symbol.dispose]();
  everything.add(FIELD.DOMAINNAME, "example.test");
  const joining = new RequestWriter();
  writeProcess(joining, makeProcess(["true"]), "terminal");
  joining.add(FIELD.CGROUP, NO_FD);
  joining.add(FIELD.TARGET, joining.addFd(9), 1);
  return [everything.finish(), joining.finish()];
}

gccTest(
  "the parser survives damaged requests under the sanitizers",
  () => {
    using directory = new TemporaryDirectory();
    const program = join(directory.path, "request-fuzz");
    const flags = ["-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-fno-sanitize-recover=all"];
    const sources = [
      "tests/fixtures/request-fuzz.c",
      ...["reader", "request", "field_process", "field_container"].map((name) => `native/init/${name}.c`),
    ].map((file) => join(root, file));
    const built = Bun.spawnSync(["gcc", ...flags, "-fsanitize=address,undefined", "-o", program, ...sources]);
    expect([built.exitCode, built.stderr.toString()]).toEqual([0, ""]);
    const files = seeds().map((bytes, index) => {
      const path = join(directory.path, `seed-${index}`);
      writeFileSync(path, bytes);
      return path;
    });
    const seed = process.env.HAKO_FUZZ_SEED ?? "20261121";
    const run = Bun.spawnSync([program, `${ROUNDS}`, seed, ...files]);
    expect([run.exitCode, run.stderr.toString()]).toEqual([0, ""]);
    const [accepted = 0, refused = 0] = [...run.stdout.toString().matchAll(/\d+/g)].map(Number);
    expect(accepted).toBeGreaterThan(ROUNDS / 100);
    expect(refused).toBeGreaterThan(ROUNDS / 2);
  },
  60_000,
);
