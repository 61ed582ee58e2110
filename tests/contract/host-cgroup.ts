import { afterEach, describe, expect } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync } from "node:fs";
import { join } from "node:path";
import { HostCgroup, removeCgroups } from "#linux/cgroup/host/host-cgroup.ts";
import type { CgroupLayout } from "#linux/cgroup/host/layout.ts";
import { SandboxCgroup } from "#resource/sandbox-cgroup.ts";
import type { testIf } from "../support/skip.ts";

export interface HostCgroupSubject {
  readonly name: string;
  readonly test: ReturnType<typeof testIf>;
  layout(): CgroupLayout;
  /** Whether threads of a process can be in different cgroups. */
  readonly partsThreads: boolean;
  /** Whether the layout has a cpuset controller. */
  readonly hasCpuset: boolean;
}

/** What the cgroups of a host have to hold, on every version of them, with real processes. */
export function hostCgroupContract(subject: HostCgroupSubject): void {
  const { test } = subject;
  const top = `hako-test-${crypto.randomUUID()}`;
  const children: Bun.Subprocess[] = [];

  /** A process with a second thread that sleeps. */
  const start = () => {
    const child = Bun.spawn(
      [
        process.execPath,
        "-e",
        "new Worker('data:text/javascript,setInterval(()=>{},1e6)'); setInterval(()=>{},1e6)",
      ],
      {
        stdin: "ignore",
        stdout: "ignore",
        stderr: "ignore",
      },
    );
    children.push(child);
    return child;
  };
  const roots = () => {
    const { unified, legacy } = subject.layout();
    return [...legacy.map(({ directory }) => directory), ...(unified === undefined ? [] : [unified])];
  };
  /** The cgroup of a process or thread in a hierarchy, by proc(5). */
  const pathOf = (pid: number, root: string, tid = pid) => {
    const lines = readFileSync(`/proc/${pid}/task/${tid}/cgroup`, "utf8").trim().split("\n");
    const { unified, legacy } = subject.layout();
    const hierarchy = legacy.find(({ directory }) => directory === root);
    const line = lines.find((candidate) => {
      const [, controllers = ""] = candidate.split(":");
      return root === unified
        ? candidate.startsWith("0::")
        : controllers === hierarchy?.controllers.join(",");
    });
    return line?.split(":").slice(2).join(":");
  };

  describe(`host cgroups, ${subject.name}`, () => {
    afterEach(async () => {
      for (const child of children.splice(0)) {
        child.kill("SIGKILL");
        await child.exited;
      }
      for (const root of process.getuid?.() === 0 ? roots() : []) {
        expect([root, existsSync(join(root, top))]).toEqual([root, false]);
      }
    });

    test("a process is in the cgroup in all hierarchies, and the cgroup goes when the process has", async () => {
      const cgroup = HostCgroup.create(`/${top}/pod/sandbox`, subject.layout());
      expect(cgroup.directories).toEqual(roots().map((root) => `${root}/${top}/pod/sandbox`));
      const child = start();
      cgroup.addProcess(child.pid);
      for (const root of roots()) expect(pathOf(child.pid, root)).toEndWith(`/${top}/pod/sandbox`);
      expect(cgroup.processes).toEqual([child.pid]);
      child.kill("SIGKILL");
      await cgroup.remove();
      await cgroup.remove();
    });

    test("what was there before stays", async () => {
      const [root = ""] = roots();
      mkdirSync(join(root, top));
      const cgroup = HostCgroup.create(`/${top}/sandbox`, subject.layout());
      await cgroup.remove();
      expect(readdirSync(root)).toContain(top);
      rmdirSync(join(root, top));
    });

    test("two sandboxes share a parent, and the last one takes it away", async () => {
      const [first, second] = ["a", "b"].map((name) =>
        HostCgroup.create(`/${top}/pod/${name}`, subject.layout()),
      );
      await first?.remove();
      expect(existsSync(join(roots()[0] ?? "", top, "pod/b"))).toBe(true);
      await second?.remove();
      await removeCgroups(roots().flatMap((root) => [`${root}/${top}/pod`, `${root}/${top}`]));
    });

    test("a cgroup that cannot be made leaves nothing", () => {
      // The kernel takes no line break in a cgroup's name.
      expect(() => HostCgroup.create(`/${top}/a\nb`, subject.layout())).toThrow("Cannot make cgroup");
    });

    test("a process that is gone cannot be added", async () => {
      const cgroup = HostCgroup.create(`/${top}`, subject.layout());
      expect(() => cgroup.addProcess(0x3f_ffff)).toThrow(expect.objectContaining({ code: "NOT_FOUND" }));
      await cgroup.remove();
    });

    test("sandbox_cgroup_only: everything is in the sandbox's; otherwise overhead is apart, where threads can be", async () => {
      for (const only of [true, false]) {
        await using cgroup = SandboxCgroup.create({
          cgroupsPath: `/${top}/sandbox`,
          sandboxId: `${top}-id`,
          only,
          layout: subject.layout(),
        });
        const child = start();
        await Bun.sleep(0);
        const threads = readdirSync(`/proc/${child.pid}/task`).map(Number);
        const [main = 0] = threads.filter((tid) => tid === child.pid);
        cgroup.add([child.pid], [main]);
        const parted = !only && subject.partsThreads;
        const [root = ""] = roots();
        expect(pathOf(child.pid, root)).toEndWith(`/${top}/sandbox`);
        const others = readdirSync(`/proc/${child.pid}/task`)
          .map(Number)
          .filter((tid) => tid !== main);
        for (const tid of others) {
          const expected = parted ? `/hako_overhead/${top}-id` : `/${top}/sandbox`;
          expect(pathOf(child.pid, root, tid)).toEndWith(expected);
        }
        child.kill("SIGKILL");
        await child.exited;
      }
      for (const root of roots()) expect(existsSync(join(root, "hako_overhead"))).toBe(false);
    });

    if (subject.hasCpuset) {
      test("CPUs can be restricted, and a list that is none is refused", async () => {
        const cgroup = HostCgroup.create(`/${top}/sandbox`, subject.layout());
        cgroup.setLimits({ cpus: "0" });
        expect(cgroup.cpus).toBe("0");
        expect(() => cgroup.setLimits({ cpus: "nonsense" })).toThrow(
          expect.objectContaining({ code: "INVALID_ARGUMENT" }),
        );
        await cgroup.remove();
      });
    }
  });
}
