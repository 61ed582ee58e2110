import { expect } from "bun:test";
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { pidfdSendSignal } from "#sys/process.ts";
import { countForEver } from "../support/real-mode.ts";
import { TestMachine, wire } from "../support/vmm-machine.ts";
import { VmmWorker, vmmTest, WORKER_ID } from "../support/vmm-worker.ts";

/** A file of a thread in /proc, as "Name:\tvalue" lines. */
function readStatus(path: string): Map<string, string> {
  const lines = readFileSync(path, "utf8").trim().split("\n");
  return new Map(lines.map((line) => [line.split(":")[0] ?? "", line.split(":")[1]?.trim() ?? ""]));
}

vmmTest("every thread has its own user, no capability and no way to one, and its filters", async () => {
  await using machine = await TestMachine.create(countForEver(0x500));
  await machine.start();
  const folder = `/proc/${machine.worker.pid}/task`;
  const threads = () => readdirSync(folder).map((task) => readStatus(`${folder}/${task}/status`));
  while (!threads().some((status) => status.get("Name") === "vcpu0" && status.get("Seccomp_filters") === "2"))
    await Bun.sleep(1);
  const names = [];
  for (const status of threads()) {
    if (status.get("Name")?.startsWith("kvm-")) continue; // the kernel's own
    names.push(status.get("Name"));
    for (const kind of ["Uid", "Gid"])
      expect(status.get(kind)).toBe(Array<number>(4).fill(WORKER_ID).join("\t"));
    expect(status.get("Groups")).toBe("");
    for (const set of ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"])
      expect(status.get(set)).toBe("0".repeat(16));
    expect(status.get("NoNewPrivs")).toBe("1");
    expect(status.get("Seccomp")).toBe("2");
    expect(status.get("Seccomp_filters")).toBe(status.get("Name") === "vcpu0" ? "2" : "1");
  }
  expect(names.sort()).toEqual(["hako-vmm", "vcpu0"]);
});

vmmTest("it has namespaces of its own, is their first process, and nobody is between it and us", async () => {
  await using worker = new VmmWorker();
  using manager = await worker.connect();
  const hello = await manager.succeed(wire("HELLO"));
  expect(hello.readUInt32LE(8)).toBe(1);
  for (const kind of ["cgroup", "ipc", "mnt", "net", "pid", "uts"]) {
    const own = readlinkSync(`/proc/${worker.pid}/ns/${kind}`);
    expect(own).toStartWith(`${kind}:[`);
    expect(own).not.toBe(readlinkSync(`/proc/self/ns/${kind}`));
  }
  const status = readStatus(`/proc/${worker.pid}/status`);
  expect(status.get("NSpid")).toMatch(/\t1$/);
  expect(status.get("PPid")).toBe(`${process.pid}`);
});

vmmTest("its root is empty, read-only and all that is mounted; nothing of ours came along", async () => {
  await using worker = new VmmWorker();
  using manager = await worker.connect();
  await manager.succeed(wire("HELLO"));
  const folder = `/proc/${worker.pid}`;
  expect(readdirSync(`${folder}/root/`)).toEqual([]);
  expect(readdirSync(`${folder}/cwd/`)).toEqual([]);
  const mounts = readFileSync(`${folder}/mounts`, "utf8").trim().split("\n");
  expect(mounts).toHaveLength(1);
  expect(mounts[0]).toMatch(/^none \/ tmpfs ro,nosuid,nodev,noexec,/);
  expect(readFileSync(`${folder}/environ`, "utf8")).toBe("");
  expect(readFileSync(`${folder}/cmdline`, "latin1")).toBe(`hako-vmm\0${WORKER_ID}\0${WORKER_ID}\0`);
  const descriptors = readdirSync(`${folder}/fd`).map((fd) => readlinkSync(`${folder}/fd/${fd}`));
  expect(descriptors.map((name) => name.replace(/:.*/, "")).sort()).toEqual(
    ["/dev/null", "/dev/null", "/memfd", "anon_inode", "anon_inode", "anon_inode", "socket", "socket"].sort(),
  );
  const limits = readFileSync(`${folder}/limits`, "utf8");
  expect(limits).toMatch(/^Max core file size +0 +0 /m);
  expect(limits).toMatch(/^Max open files +16384 +16384 /m);
});

vmmTest("signals of a terminal or a supervisor do not end it", async () => {
  await using worker = new VmmWorker();
  using manager = await worker.connect();
  await manager.succeed(wire("HELLO"));
  for (const signal of [1, 2, 15, 13]) pidfdSendSignal(worker.pidfd.number, signal);
  await manager.succeed(wire("HELLO"));
  const stat = readFileSync(`/proc/${worker.pid}/stat`, "latin1").split(") ")[1]?.split(" ") ?? [];
  expect(stat[3]).toBe(`${worker.pid}`); // its own session
});

vmmTest("it refuses to become root, or nobody in particular", async () => {
  for (const [ids, text] of [
    [["0", "61234"], "cannot confine itself: Invalid argument"],
    [["61234", "0"], "cannot confine itself: Invalid argument"],
    [["61234", "-1"], "cannot confine itself: Invalid argument"],
    [["61234"], "usage: hako-vmm UID GID: Invalid argument"],
  ] as const) {
    await using worker = new VmmWorker({ ids });
    expect(await worker.ended()).toEqual({ code: 1 });
    expect(worker.log).toBe(`hako-vmm: ${text}\n`);
  }
});

vmmTest("the executable is small, static, and lies at another address each time", async () => {
  const program = readFileSync(join(import.meta.dir, "../../dist/native/hako-vmm"));
  expect(program.length).toBeLessThan(400_000);
  const places = new Set<string>();
  for (let i = 0; i < 4; i++) {
    await using worker = new VmmWorker();
    using manager = await worker.connect();
    await manager.succeed(wire("HELLO"));
    const maps = readFileSync(`/proc/${worker.pid}/maps`, "utf8");
    expect(maps).not.toContain(".so");
    expect(maps).not.toMatch(/ rwx/);
    places.add(/^(\w+)-.*memfd:hako-vmm/m.exec(maps)?.[1] ?? "not found");
  }
  expect(places.size).toBe(4);
});
