/** The built-in VMM with a bare-metal guest on this host's own /dev/kvm, of whatever kind. */
import { afterAll, describe, expect } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { socketStream } from "#sys/byte-stream.ts";
import { type Fd, memfd, O, openFd } from "#sys/fd.ts";
import { hybridVsockConnect } from "#sys/hybrid-vsock.ts";
import { unixListen } from "#sys/socket.ts";
import { ByteWriter } from "#vmm/byte-writer.ts";
import type { VmDevice } from "#vmm/device.ts";
import { describeExit } from "#vmm/machine-exit.ts";
import { BareMachine, type BareOptions, bareGuestMissing } from "../support/bare-guest.ts";
import { fnv1a } from "../support/contract-guest.ts";
import { PacketSocket } from "../support/packet-socket.ts";
import { testIf } from "../support/skip.ts";
import { openTestTap, tapMissing } from "../support/tap.ts";

const missing = bareGuestMissing();
const bare = testIf(missing === undefined, missing ?? "");
const work = mkdtempSync(join(tmpdir(), "hako-bare-test-"));
const resources = new DisposableStack();
afterAll(() => {
  resources.dispose();
  rmSync(work, { recursive: true });
});

const MIB = 1024 * 1024;

function file(name: string, bytes: Uint8Array, flags: number = O.RDWR): { path: string; fd: number } {
  const path = join(work, name);
  writeFileSync(path, bytes);
  return { path, fd: resources.use(openFd(path, flags)).number };
}

/** Words of a line as "key=value", by key. */
function values(line: string): Record<string, string> {
  return Object.fromEntries(
    [...line.matchAll(/(\w+)=(\S+)/g)].map(([, key = "", value = ""]) => [key, value]),
  );
}

async function run(words: readonly string[], options: BareOptions = {}): Promise<readonly string[]> {
  await using machine = await BareMachine.create(words, options);
  return await machine.run();
}

describe("entering a guest", () => {
  const protocols = [
    ["PVH", false, "protocol=1 cr0=11 cr3=0 cr4=0 efer=0 cs=10 ds=18 flags=2"],
    ["the 64-bit protocol", true, "protocol=2 cr0=80000011 cr3=9000 cr4=20 efer=500 cs=10 ds=18 flags=2"],
  ] as const;
  for (const [name, linux64, entry] of protocols) {
    bare(`by ${name}: registers, command line, initrd, tables`, async () => {
      const initrd = crypto.getRandomValues(new Uint8Array(10_000));
      const initrdFd = resources.use(memfd("initrd", initrd)).number;
      const options = { linux64, initrdFd, vcpus: 3, maxVcpus: 3, freeWindows: 8 };
      const lines = await run(["tables=1", "one", "two"], options);
      expect(lines).toContain(`entry ${entry}`);
      expect(lines).toContain("words pci=off reboot=k tables=1 one two");
      const found = values(lines.find((line) => line.startsWith("initrd")) ?? "");
      expect(found).toEqual({
        start: (128 * MIB - 12288).toString(16),
        size: "10000",
        hash: fnv1a(initrd).replace(/^0+/, ""),
      });
      expect(lines).toContain("madt processors=3 lapic=fee00000 ioapic=fec00000");
      expect(lines).toContain("mp entries=31");
      expect(lines.filter((line) => line.startsWith("acpi"))).toEqual(["acpi table=FACP", "acpi table=APIC"]);
      expect(lines).toContain("cpuid id=0 hypervisor=1 deadline=1");
    });
  }

  bare("without ACPI devices stand on the command line", async () => {
    const lines = await run(["tables=1"], { discovery: "command-line", freeWindows: 2 });
    expect(lines).toContain(
      "words acpi=off pci=off reboot=k virtio_mmio.device=4K@0xd0000000:6 virtio_mmio.device=4K@0xd0001000:7 tables=1",
    );
    expect(lines.some((line) => line.startsWith("acpi"))).toBe(false);
  });

  for (const [memoryMib, ranges] of [
    [128, ["0 9fc00 1", "9fc00 60400 2", "100000 7f00000 1"]],
    [3072, ["0 9fc00 1", "9fc00 60400 2", "100000 bff00000 1"]],
    [5120, ["0 9fc00 1", "9fc00 60400 2", "100000 bff00000 1", "100000000 80000000 1"]],
  ] as const) {
    bare(`${memoryMib} MiB: the map is right, and the last page of each piece is memory`, async () => {
      const lines = await run([], { memoryMib });
      const map = lines.filter((line) => line.startsWith("map")).map(values);
      expect(map.map(({ start, size, type }) => `${start} ${size} ${type}`)).toEqual([...ranges]);
    });
  }
});

describe("ends", () => {
  const endings = [
    ["power-off", [], "guest-off", "The guest powered off"],
    ["reset", ["reset=1"], "guest-reset", "The guest reset itself"],
    ["triple fault", ["fault=1"], "guest-crash", "triple fault"],
  ] as const;
  for (const [name, words, kind, detail] of endings) {
    bare(`${name} reaches the manager as ${kind}`, async () => {
      await using machine = await BareMachine.create(words);
      await machine.run();
      await machine.vm.closed;
      const exit = machine.vm.exit && describeExit(machine.vm.exit);
      expect(exit?.kind).toBe(kind);
      expect(exit?.detail).toContain(detail);
      expect((await machine.worker.exited).code).toBe(0);
    });
  }

  bare("a killed worker is seen as what it is", async () => {
    await using machine = await BareMachine.create(["spin=1"]);
    await machine.run();
    machine.worker.kill();
    expect(await machine.worker.exited).toEqual({ code: 137, signal: 9 });
    await machine.vm.closed;
    expect(machine.vm.exit).toBeUndefined();
    await expect(machine.vm.pause()).rejects.toMatchObject({ code: "UNAVAILABLE" });
  });

  bare("a file behind guest memory that becomes shorter is a named end", async () => {
    const { path, fd } = file("shrinking", new Uint8Array(4 * MIB));
    const pmem = { kind: "pmem", id: "p", fd, size: BigInt(4 * MIB), readOnly: true } as const;
    await using machine = await BareMachine.create(["devices=1", `pmem=${4 * MIB}`], { devices: [pmem] });
    truncateSync(path, 4096);
    await machine.vm.start();
    await machine.vm.closed;
    const exit = machine.vm.exit && describeExit(machine.vm.exit);
    expect(exit).toMatchObject({ kind: "monitor-error" });
    expect(exit?.detail).toContain("became shorter");
  });
});

/** The host's part of what the guest does with a device, beside the device itself. */
interface DeviceCase {
  readonly name: string;
  readonly words?: readonly string[];
  readonly device: () => VmDevice;
  readonly meanwhile?: (machine: BareMachine) => Promise<void>;
  readonly expected: Readonly<Record<string, string>>;
}

const diskBytes = crypto.getRandomValues(new Uint8Array(20_000));
const padded = Buffer.concat([diskBytes, Buffer.alloc(480)]);
const vsockPath = join(work, "vsock");
const vsockListeners: Fd[] = [];

const cases: readonly DeviceCase[] = [
  {
    name: "rng",
    device: () => ({ kind: "rng", id: "r" }),
    expected: { bytes: "64", random: "1" },
  },
  {
    name: "block",
    device: () => {
      const { fd } = file("disk", diskBytes);
      return { kind: "block", id: "b", fd, size: 20_000n, readOnly: false, serial: "bare-1" };
    },
    expected: { serial: "bare-1", sectors: "40", hash: fnv1a(padded), write: "0", flush: "0", beyond: "1" },
  },
  {
    name: "pmem",
    words: ["pmem=20480"],
    device: () => ({ kind: "pmem", id: "p", fd: file("pmem", diskBytes).fd, size: 20_000n, readOnly: true }),
    expected: { start: "100000000", size: "200000", hash: fnv1a(padded), flush: "0" },
  },
  {
    name: "balloon",
    device: () => ({ kind: "balloon", id: "b" }),
    meanwhile: async (machine) => {
      await machine.line("balloon waits");
      await machine.vm.updateDevice(0, new ByteWriter().u64(64 * 4096).take());
      await machine.vm.until(() => machine.vm.sizeOf(0) === 64n * 4096n);
    },
    expected: { pages: "64" },
  },
  {
    name: "mem",
    device: () => ({ kind: "mem", id: "m", size: BigInt(128 * MIB) }),
    meanwhile: async (machine) => {
      await machine.line("mem waits");
      await machine.vm.updateDevice(
        0,
        new ByteWriter()
          .zeros(24)
          .u64(8 * MIB)
          .zeros(8)
          .take(),
      );
    },
    expected: { blocks: "4", plug: "0", unplug: "0", again: "3" },
  },
  {
    name: "vsock",
    device: () => {
      rmSync(vsockPath, { force: true });
      vsockListeners.push(resources.use(unixListen(vsockPath)));
      return { kind: "vsock", id: "v", cid: 77n, listenerFd: vsockListeners.at(-1)?.number ?? -1 };
    },
    meanwhile: async (machine) => {
      await machine.line("vsock cid=77");
      const stream = await socketStream(await hybridVsockConnect(vsockPath, 1024));
      const echoed = Promise.withResolvers<string>();
      let text = "";
      stream.start({
        data: (chunk) => {
          text += Buffer.from(chunk).toString();
          if (text.length === 3000) echoed.resolve(text);
        },
        close: () => {},
      });
      const sent = Array.from({ length: 300 }, (_, index) =>
        `line ${index}`.padEnd(9, ".").concat("\n"),
      ).join("");
      await stream.write(Buffer.from(sent));
      expect(await echoed.promise).toBe(sent);
      stream.close();
    },
    expected: { echoed: "3000" },
  },
];

for (const how of ["polling", "interrupt"] as const) {
  describe(`devices by ${how}`, () => {
    for (const { name, words = [], device, meanwhile, expected } of cases) {
      bare(`virtio ${name}`, async () => {
        const options = { devices: [device()], freeWindows: 2 };
        const line = ["devices=1", ...words, ...(how === "interrupt" ? ["irq=1"] : [])];
        await using machine = await BareMachine.create(line, options);
        await machine.vm.start();
        await meanwhile?.(machine);
        await machine.line("done");
        const hash = expected.hash === undefined ? {} : { hash: expected.hash.replace(/^0+/, "") };
        const said = values(await machine.line(`${name} by=`));
        expect(said).toEqual({ ...expected, ...hash, by: how });
      });
    }
  });
}

bare("what a guest wrote and flushed is in the file, and a read-only disk stays as it was", async () => {
  const disk = file("written", diskBytes);
  const kept = file("kept", diskBytes, O.RDONLY);
  const block = (fd: number, readOnly: boolean, serial: string): VmDevice => ({
    kind: "block",
    id: serial,
    fd,
    size: 20_000n,
    readOnly,
    serial,
  });
  const lines = await run(["devices=1"], {
    devices: [block(disk.fd, false, "w"), block(kept.fd, true, "r")],
  });
  const [first, second] = lines.filter((line) => line.startsWith("block")).map(values);
  expect([first?.write, second?.write]).toEqual(["0", "1"]);
  expect(
    readFileSync(disk.path)
      .subarray(512, 1024)
      .every((byte) => byte === 0x5a),
  ).toBe(true);
  expect(readFileSync(kept.path).equals(Buffer.from(diskBytes))).toBe(true);
});

const noTap = missing ?? tapMissing();
testIf(noTap === undefined, noTap ?? "")("virtio net: frames in both directions, by interrupt", async () => {
  using tap = openTestTap();
  const mac = Uint8Array.of(2, 0, 0, 0, 0, 0x42);
  const net = { kind: "net", id: "n", tapFds: tap.fds, mac } as const;
  await using machine = await BareMachine.create(["devices=1", "irq=1"], { devices: [net] });
  using socket = new PacketSocket(tap.interfaceName);
  await machine.vm.start();
  expect(await socket.receive()).toBe("from-the-guest");
  socket.send("from-the-host");
  expect(await machine.line("net by=interrupt")).toStartWith(
    "net by=interrupt mac=20000000042 received=from-the-host",
  );
});

describe("life", () => {
  bare("a paused guest stands still, goes on after, and is not there for a second start", async () => {
    await using machine = await BareMachine.create(["ticks=200"]);
    await expect(machine.vm.pause()).rejects.toMatchObject({ name: "VmmError" });
    await machine.vm.start();
    await machine.line("tick 3");
    await machine.vm.pause();
    await Bun.sleep(50);
    const before = machine.lines.length;
    await Bun.sleep(100);
    expect(machine.lines.length).toBe(before);
    await expect(machine.vm.start()).rejects.toMatchObject({ name: "VmmError" });
    await machine.vm.resume();
    await machine.line("tick 20");
  });

  bare("metrics count exits and what devices did", async () => {
    const { fd } = file("metrics", diskBytes);
    const block: VmDevice = { kind: "block", id: "b", fd, size: 20_000n, readOnly: false, serial: "m" };
    await using machine = await BareMachine.create(["devices=1", "spin=1"], { devices: [block] });
    await machine.run();
    const metrics = await machine.vm.metrics();
    expect(metrics.length).toBeGreaterThan(5);
    expect(metrics.some(({ slot, value }) => slot === 0 && value >= 20_480n)).toBe(true);
    expect(metrics.every(({ name }) => /^[a-z0-9_]+$/.test(name))).toBe(true);
  });

  bare("bad requests leave the machine as it was, with a reason", async () => {
    await using machine = await BareMachine.create(["spin=1"], { devices: [{ kind: "rng", id: "r" }] });
    const refused = (promise: Promise<unknown>) =>
      expect(promise).rejects.toMatchObject({ name: "VmmError" });
    await refused(machine.vm.request("MACHINE_CREATE", new Uint8Array(32)));
    await refused(
      machine.vm.request(
        "MEMORY_WRITE",
        new ByteWriter()
          .u64(1n << 60n)
          .u64(1)
          .take(),
      ),
    );
    await refused(machine.vm.removeDevice(9));
    await refused(machine.vm.updateDevice(9, new Uint8Array(8)));
    await refused(machine.vm.limitVcpus(99));
    await machine.run();
    expect((await machine.vm.hello()).state).toBe(3);
  });
});

bare("a machine larger than the processor's addresses is refused before it exists", async () => {
  await expect(BareMachine.create([], { memoryMib: 2 ** 33 })).rejects.toMatchObject({
    code: "FAILED_PRECONDITION",
  });
});
