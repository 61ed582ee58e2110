/** What the agent can only show with a kernel of its own: limits, disks, clock, random numbers, the end of the VM. */
import { afterAll, beforeAll, describe, expect } from "bun:test";
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { O, openFd } from "#sys/fd.ts";
import { AgentMachine, agentMachineMissing } from "../support/agent-machine.ts";
import { failure } from "../support/agent-process.ts";
import { testIf } from "../support/skip.ts";
import { openTestTap, tapMissing } from "../support/tap.ts";

const missing = agentMachineMissing();
const vmTest = testIf(missing === undefined, missing ?? "");
const TIMEOUT = 180_000;
const MIB = 1 << 20;

let box: AgentMachine;

beforeAll(async () => {
  if (missing !== undefined) return;
  box = await AgentMachine.boot();
  await box.agent.createSandbox({ hostname: "guest", sandboxId: "s", dns: ["nameserver 192.0.2.1"] });
}, TIMEOUT);

afterAll(async () => {
  await box?.[Symbol.asyncDispose]();
}, TIMEOUT);

describe("limits", () => {
  vmTest(
    "memory: a process that takes too much is killed, and the client hears of it",
    async () => {
      const event = box.agent.getOOMEvent({});
      const eat = "x=aaaaaaaaaaaaaaaa; while true; do x=$x$x; done";
      const containerId = await box.run(eat, { memoryLimit: 16 * MIB });
      expect((await event).containerId).toBe(containerId);
      expect((await box.collect(containerId)).code).toBe(137);
      const { cgroupStats } = await box.agent.statsContainer({ containerId });
      expect(cgroupStats?.memoryStats?.usage?.limit).toBe(BigInt(16 * MIB));
      await box.agent.removeContainer({ containerId });
    },
    TIMEOUT,
  );

  vmTest(
    "processes: a fork bomb is contained, and its container can be removed",
    async () => {
      const bomb = "b() { b | b & }; b; echo planted; sleep 1000";
      const containerId = await box.run(bomb, {}, ({ spec }) => {
        if (spec.Linux?.Resources) spec.Linux.Resources.Pids = { Limit: 40n };
      });
      await box.agent.readStdout({ containerId, len: 100 });
      const { cgroupStats } = await box.agent.statsContainer({ containerId });
      expect(cgroupStats?.pidsStats?.limit).toBe(40n);
      expect(cgroupStats?.pidsStats?.current).toBeLessThanOrEqual(40n);
      await box.agent.removeContainer({ containerId, timeout: 60 });
      expect((await box.client.health.check({})).status).toBe(1);
    },
    TIMEOUT,
  );

  vmTest(
    "are seen in the container's own cgroup, and can be changed",
    async () => {
      const mount = { destination: "/sys/fs/cgroup", type: "cgroup", source: "cgroup", options: ["ro"] };
      const show =
        "cd /sys/fs/cgroup; cat cpu.max cpu.weight pids.max cpuset.cpus; read x; cat cpu.max pids.max";
      const containerId = await box.run(show, { cpus: 0.5, mounts: [mount] }, ({ spec }) => {
        const resources = spec.Linux?.Resources;
        if (!resources?.CPU) throw new Error("no limits in the specification");
        resources.CPU.Shares = 2048n;
        resources.CPU.Cpus = "0";
        resources.Unified = { "pids.max": "77" };
      });
      const { data } = await box.agent.readStdout({ containerId, len: 1000 });
      expect(Buffer.from(data).toString()).toStartWith("50000 100000\n");
      await box.agent.updateContainer({
        containerId,
        resources: { CPU: { Quota: 20000n, Period: 100000n }, Pids: { Limit: 55n } },
      });
      await box.agent.writeStdin({ containerId, data: Buffer.from("go\n") });
      const rest = Buffer.from(data).toString() + (await box.collect(containerId)).stdout;
      expect(rest).toBe("50000 100000\n174\n77\n0\n20000 100000\n55\n");
      await box.agent.removeContainer({ containerId });
    },
    TIMEOUT,
  );

  vmTest(
    "that the kernel refuses are errors, and leave no container",
    async () => {
      const create = box.run("true", { id: "refused" }, ({ spec }) => {
        if (spec.Linux?.Resources) spec.Linux.Resources.HugepageLimits = [{ Pagesize: "3MB", Limit: 1n }];
      });
      expect(await failure(create)).toMatchObject({ code: "FAILED_PRECONDITION" });
      expect((await box.collect(await box.run("echo fine", { id: "refused" }))).stdout).toBe("fine\n");
      await box.agent.removeContainer({ containerId: "refused" });
    },
    TIMEOUT,
  );
});

describe("disks", () => {
  vmTest(
    "one that does not come is waited for, then an error",
    async () => {
      const create = box.run("true", { id: "waits" }, ({ request }) => {
        request.storages = [
          {
            driver: "blk",
            source: "/dev/disk/by-id/virtio-absent",
            fstype: "erofs",
            mountPoint: "/run/kata-containers/waits/x",
          },
        ];
      });
      const { code, message } = await failure(create);
      expect(code).toBe("DEADLINE_EXCEEDED");
      expect(message).toContain("it did not appear within 3000 ms");
    },
    TIMEOUT,
  );

  vmTest(
    "the guest's own disks cannot be read by a container's root",
    async () => {
      const script = [
        "IFS=: read major minor < /sys/block/vda/dev",
        "mknod /d b $major $minor && head -c 1 /d 2>&1",
        "ls /dev | tr '\\n' ' '",
      ].join("; ");
      const containerId = await box.run(script);
      const { stdout } = await box.collect(containerId);
      expect(stdout).toContain("Operation not permitted");
      expect(stdout).toEndWith(
        "core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero ",
      );
      await box.agent.removeContainer({ containerId });
    },
    TIMEOUT,
  );
});

describe("the guest", () => {
  vmTest("has Kata's details", async () => {
    const { agentDetails, memBlockSizeBytes } = await box.agent.getGuestDetails({ memBlockSize: true });
    expect(agentDetails).toMatchObject({ initDaemon: false, supportsSeccomp: true });
    expect(memBlockSizeBytes).toBeGreaterThan(0n);
  });

  vmTest("takes the time", async () => {
    await box.agent.setGuestDateTime({ Sec: 1_000_000_000n, Usec: 5n });
    const containerId = await box.run("date -u +%Y-%m");
    expect((await box.collect(containerId)).stdout).toBe("2001-09\n");
    await box.agent.removeContainer({ containerId });
    expect(await failure(box.agent.setGuestDateTime({ Sec: -1n }))).toMatchObject({
      code: "INVALID_ARGUMENT",
    });
  });

  vmTest("takes random numbers", async () => {
    await box.agent.reseedRandomDev({ data: crypto.getRandomValues(new Uint8Array(512)) });
    expect(await failure(box.agent.reseedRandomDev({}))).toMatchObject({ code: "INVALID_ARGUMENT" });
  });

  vmTest("has only the loopback interface, which is up", async () => {
    const { Interfaces } = await box.agent.listInterfaces({});
    expect(Interfaces.map(({ name }) => name)).toContain("lo");
    const containerId = await box.run("ping -c 1 -W 5 127.0.0.1 > /dev/null && echo up");
    expect((await box.collect(containerId)).stdout).toBe("up\n");
    await box.agent.removeContainer({ containerId });
  });

  vmTest(
    "an interface that does not come is waited for, then an error",
    async () => {
      const request = { interface: { name: "eth0", hwAddr: "02:00:00:00:00:01", mtu: 1500n } };
      expect(await failure(box.agent.updateInterface(request))).toMatchObject({ code: "DEADLINE_EXCEEDED" });
    },
    TIMEOUT,
  );

  vmTest("cannot be reached by a container: neither agent nor launcher are in its sight", async () => {
    const containerId = await box.run(
      "ps | wc -l; ls /proc | grep -c '^[0-9]'; kill -9 1 2; ls /run /sys/class/virtio-ports",
    );
    const { stdout } = await box.collect(containerId);
    expect(Number(stdout.split("\n")[0])).toBeLessThan(6);
    await box.agent.removeContainer({ containerId });
    expect((await box.client.health.check({})).status).toBe(1);
  });
});

const hotplugMissing = missing ?? tapMissing();

testIf(hotplugMissing === undefined, hotplugMissing ?? "")(
  "disks and network interfaces that are plugged in are waited for and found",
  async () => {
    await using q35 = await AgentMachine.boot({ machineType: "q35" });
    await q35.agent.createSandbox({});
    const directory = mkdtempSync(join(tmpdir(), "hako-disk-"));
    const path = join(directory, "plugged");
    writeFileSync(path, "plugged in\n".padEnd(512));
    using fd = openFd(path, O.RDONLY);
    using tap = openTestTap();
    const macAddress = "02:00:00:00:00:77";
    const disk = { kind: "block", id: "late", serial: "late", fd: fd.number, readOnly: true } as const;
    const network = { kind: "network", id: "net", tapFds: tap.fds, macAddress } as const;

    const address = { family: 0, address: "192.0.2.5", mask: "24" } as const;
    const wanted = { name: "hako0", hwAddr: macAddress.toUpperCase(), mtu: 1400n, IPAddresses: [address] };
    const [updated] = await Promise.all([
      q35.agent.updateInterface({ interface: wanted }),
      q35.machine.attach(network),
    ]);
    expect(updated.name).toBe("hako0");
    const route = { dest: "", gateway: "192.0.2.1", device: "hako0" };
    const { Routes } = await q35.agent.updateRoutes({
      routes: { Routes: [route, { dest: "198.51.100.0/24", device: "hako0", scope: 253 }] },
    });
    expect(
      Routes.filter(({ device }) => device === "hako0").map(({ dest, gateway }) => `${dest} ${gateway}`),
    ).toEqual(expect.arrayContaining(["0.0.0.0/0 192.0.2.1", "198.51.100.0/24 ", "192.0.2.0/24 "]));
    const neighbor = { toIPAddress: { address: "192.0.2.1" }, device: "hako0", lladdr: "02:00:00:00:00:78" };
    await q35.agent.addARPNeighbors({ neighbors: { ARPNeighbors: [neighbor] } });

    const show =
      "head -c 10 /dev/late; ip address show hako0 | grep -o 'mtu 1400\\|inet [^ ]*'; arp -n | grep -c PERM";
    const created = q35.run(show, {}, ({ spec, request }) => {
      const node = { Path: "/dev/late", Type: "b", Major: 8n, Minor: 0n, FileMode: 0o660, UID: 0, GID: 0 };
      spec.Linux?.Devices.push(node);
      request.devices = [{ containerPath: "/dev/late", type: "blk", vmPath: "/dev/disk/by-id/virtio-late" }];
    });
    const [containerId] = await Promise.all([created, q35.machine.attach(disk)]);
    expect((await q35.collect(containerId)).stdout).toBe("plugged inmtu 1400\ninet 192.0.2.5/24\n1\n");
    const { networkStats } = await q35.agent.statsContainer({ containerId });
    expect(networkStats).toEqual([]);
    await q35.agent.removeContainer({ containerId });
    rmSync(directory, { recursive: true });
  },
  TIMEOUT,
);

vmTest(
  "a machine with 128 MiB runs containers, one with a data disk that it gives back whole; the agent's memory is bounded",
  async () => {
    const directory = mkdtempSync(join(tmpdir(), "hako-disk-"));
    const path = join(directory, "data");
    writeFileSync(path, "");
    truncateSync(path, 4 * MIB);
    using fd = openFd(path, O.RDWR);
    const devices = [{ kind: "block", id: "data", serial: "data", fd: fd.number, readOnly: false }] as const;
    await using small = await AgentMachine.boot({ memoryMib: 128, devices });
    await small.agent.createSandbox({});
    const device = { containerPath: "/dev/data", type: "blk", vmPath: "/dev/disk/by-id/virtio-data" };
    const write = "echo first > /dev/data; sync; dd if=/dev/data bs=6 count=1 2>/dev/null";
    const containerId = await small.run(write, {}, ({ spec, request }) => {
      const node = { Path: "/dev/data", Type: "b", Major: 8n, Minor: 0n, FileMode: 0o660, UID: 0, GID: 0 };
      spec.Linux?.Devices.push(node);
      request.devices = [device];
    });
    expect((await small.collect(containerId)).stdout).toBe("first\n");
    await small.agent.removeContainer({ containerId });
    for (let round = 0; round < 5; round++) {
      const id = await small.run("yes | head -n 100000");
      expect((await small.collect(id)).stdout.length).toBe(200_000);
      await small.agent.removeContainer({ containerId: id });
    }
    const rss = await small.metric("kata_agent_total_rss");
    expect(rss).toBeGreaterThan(10 * MIB);
    expect(rss).toBeLessThan(64 * MIB);
    console.log(`agent: ${(rss / MIB).toFixed(1)} MiB resident in a guest of 128 MiB`);
    await small.agent.destroySandbox({});
    expect((await small.machine.exited).reason).toBe("guest-shutdown");
    rmSync(directory, { recursive: true });
  },
  TIMEOUT,
);
