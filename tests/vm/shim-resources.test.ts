/** What a pod takes from its host and its machine: cgroups, size, interfaces; by the calls that containerd makes. */
import { afterAll, beforeAll, expect } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { findCgroupLayout } from "#linux/cgroup/host/layout.ts";
import type { Spec } from "#oci/runtime-spec.ts";
import { containerdTest } from "../support/containerd-host.ts";
import { MACHINE_TIMEOUT_MS } from "../support/hako-host.ts";
import { TestNamespace } from "../support/network-namespace.ts";
import { ShimHost } from "../support/shim-process.ts";

let host: ShimHost;

beforeAll(() => {
  host = new ShimHost();
  host.serveEvents();
});
afterAll(() => host?.[Symbol.dispose]());

/** Lines that a container writes, by a pipe as containerd makes it. */
class Lines implements Disposable {
  readonly path: string;
  readonly #reader: Bun.Subprocess<"ignore", "pipe", "ignore">;
  #text = "";

  constructor(directory: string) {
    this.path = join(directory, "stdout");
    Bun.spawnSync(["mkfifo", this.path]);
    this.#reader = Bun.spawn(["cat", this.path], { stdin: "ignore", stdout: "pipe", stderr: "ignore" });
    void this.#read();
  }

  async #read(): Promise<void> {
    for await (const chunk of this.#reader.stdout) this.#text += Buffer.from(chunk).toString();
  }

  async until(pattern: RegExp): Promise<string> {
    for (let tries = 0; tries < 3600; tries++) {
      const match = pattern.exec(this.#text);
      if (match) return match[1] ?? match[0];
      await Bun.sleep(50);
    }
    throw new Error(`Never seen ${pattern} in ${JSON.stringify(this.#text.slice(-500))}`);
  }

  /** What comes from now on. */
  forget(): void {
    this.#text = "";
  }

  [Symbol.dispose](): void {
    this.#reader.kill("SIGKILL");
  }
}

/** Processes of a cgroup of the host, in its first hierarchy. */
function processesOf(path: string): string[] {
  const { unified, legacy } = findCgroupLayout();
  const file = `${legacy[0]?.directory ?? unified}${path}/cgroup.procs`;
  if (!existsSync(file)) return [];
  const pids = readFileSync(file, "utf8").trim().split("\n").filter(Boolean);
  return pids.map((pid) => readFileSync(`/proc/${pid}/comm`, "utf8").trim());
}

/** The CPUs that the vCPU threads of a cgroup's monitor may use; QEMU names them. */
function vcpuAffinities(path: string): string[] {
  const { unified, legacy } = findCgroupLayout();
  const pids = readFileSync(`${legacy[0]?.directory ?? unified}${path}/cgroup.procs`, "utf8")
    .trim()
    .split("\n");
  return pids.flatMap((pid) =>
    readdirSync(`/proc/${pid}/task`)
      .map((tid) => readFileSync(`/proc/${pid}/task/${tid}/status`, "utf8"))
      .filter((status) => /^Name:\s+CPU \d+\//m.test(status))
      .map((status) => /^Cpus_allowed_list:\s+(.*)$/m.exec(status)?.[1] ?? ""),
  );
}

const script = `while sleep 0.3; do echo "mem $(grep MemTotal /proc/meminfo | grep -o '[0-9]*')"; echo "eth $(ip -o -4 addr | grep -o '192.0.2.[0-9]*/24\\|198.51.100.[0-9]*/24' | tr '\\n' ' ')"; done`;

containerdTest(
  "a pod is in its cgroup, grows with an update, gets interfaces that come late, and shares a directory",
  async () => {
    await using pod = await TestNamespace.create();
    pod.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "peer0");
    pod.run("ip", "address", "add", "192.0.2.2/24", "dev", "eth0");
    for (const name of ["eth0", "peer0"]) pod.run("ip", "link", "set", name, "up");
    const cgroup = `/hako-test-${crypto.randomUUID()}`;
    const settings = join(host.hako.dir, "configuration.toml");
    writeFileSync(
      settings,
      "[runtime]\nstatic_sandbox_resource_mgmt = false\nenable_vcpus_pinning = true\n[hypervisor.qemu]\ndefault_memory = 256\ndefault_maxmemory = 1024\n",
    );
    const bundle = await host.bundle("pod", script, (config: Spec) => ({
      ...config,
      annotations: { "io.kubernetes.cri.container-type": "sandbox", "io.kubernetes.cri.sandbox-id": "pod" },
      linux: {
        ...config.linux,
        cgroupsPath: cgroup,
        resources: { cpu: { cpus: "0" } },
        namespaces: [...(config.linux?.namespaces ?? []), { type: "network", path: pod.path }],
      },
    }));
    using lines = new Lines(bundle);
    const started = await host.run("pod", bundle, "start", { HAKO_CONFIG_FILE: settings });
    expect({ code: started.code, stderr: started.stderr }).toEqual({ code: 0, stderr: "" });
    const { connectShim } = await import("../support/shim-process.ts");
    using shim = await connectShim(started.stdout);
    await shim.task.create({ id: "pod", bundle, stdout: lines.path });
    pod.run("ip", "link", "add", "eth1", "type", "veth", "peer", "name", "peer1");
    pod.run("ip", "address", "add", "198.51.100.2/24", "dev", "eth1");
    for (const name of ["eth1", "peer1"]) pod.run("ip", "link", "set", name, "up");
    await shim.task.start({ id: "pod" });

    await lines.until(/^eth 192\.0\.2\.2\/24 198\.51\.100\.2\/24/m);
    expect(processesOf(cgroup)).toEqual([expect.stringMatching(/^qemu/)]);

    // One vCPU and one CPU: its thread is bound to that.
    expect(vcpuAffinities(cgroup)).toEqual(["0"]);

    const before = Number(await lines.until(/^mem (\d+)$/m));
    const resources = { memory: { limit: 200 * 1024 * 1024 } };
    const value = Buffer.from(JSON.stringify(resources));
    const typeUrl = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";
    await shim.task.update({ id: "pod", resources: { typeUrl, value } });
    lines.forget();
    const after = Number(await lines.until(/^mem (\d+)$/m));
    expect(after - before).toBeGreaterThan(150 * 1024);

    // A directory that a later container shares for writing is plugged into the running machine.
    const shared = join(host.hako.dir, "shared");
    mkdirSync(shared);
    const app = await host.bundle("app", "echo app > /data/file", (config: Spec) => ({
      ...config,
      mounts: [
        ...(config.mounts ?? []),
        { destination: "/data", type: "bind", source: shared, options: ["rbind", "rw"] },
      ],
      annotations: { "io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": "pod" },
    }));
    await shim.task.create({ id: "app", bundle: app });
    await shim.task.start({ id: "app" });
    expect((await shim.task.wait({ id: "app" })).exitStatus).toBe(0);
    await shim.task.delete({ id: "app" });
    expect(readFileSync(join(shared, "file"), "utf8")).toBe("app\n");

    await shim.task.kill({ id: "pod", signal: 9, all: true });
    await shim.task.wait({ id: "pod" });
    await shim.task.delete({ id: "pod" });
    await shim.task.shutdown({ id: "pod", now: true });
    await shim.client.closed;
    for (let tries = 0; tries < 100 && host.hako.leftovers().length > 0; tries++) await Bun.sleep(50);
    expect(host.hako.leftovers()).toEqual([]);
    const { unified, legacy } = findCgroupLayout();
    const roots = [...legacy.map(({ directory }) => directory), ...(unified === undefined ? [] : [unified])];
    expect(roots.filter((root) => existsSync(`${root}${cgroup}`))).toEqual([]);
    expect(pod.run("tc", "qdisc", "show")).not.toContain("ingress");
    expect(readdirSync(join(bundle))).toContain("config.json");
  },
  3 * MACHINE_TIMEOUT_MS,
);
