/**
 * The suite that every hypervisor driver passes, with a real guest: tests/fixtures/contract-guest.c answers from the
 * inside. A driver's test file calls {@link hypervisorContract} once for each of its forms. What a form lacks by its
 * own declaration (capabilities) must answer UNIMPLEMENTED; what it should do and cannot is declared in `skips`.
 */
import { afterAll, beforeAll, describe, expect } from "bun:test";
import { readFileSync } from "node:fs";
import type { HakoError } from "#base/error.ts";
import type { Capability, Machine, NetworkSpec } from "#hypervisor/hypervisor.ts";
import { fnv1a, type GuestChannel } from "../support/contract-guest.ts";
import { PacketSocket } from "../support/packet-socket.ts";
import { testIf } from "../support/skip.ts";
import { openTestTap, type TestTap, tapMissing } from "../support/tap.ts";
import { endContract } from "./hypervisor-end.ts";
import { type ContractSubject, MachineFixture } from "./machine-fixture.ts";

const BOOT_TIMEOUT_MS = 120_000;
/** Not a whole number of sectors, and long enough for many requests. */
const IMAGE_BYTES = 300 * 1024 + 100;
const SECTOR = 512;

/** Runs all cases. */
export function hypervisorContract(subject: ContractSubject): void {
  runningContract(subject);
  describe(subject.name, () => endContract(subject));
}

/** Runs the cases of a running machine: one machine serves all of them. */
export function runningContract(subject: ContractSubject): void {
  describe(subject.name, () => runningCases(subject));
}

function runningCases(subject: ContractSubject): void {
  const contract = (name: string, body: () => Promise<void>) => {
    const reason = subject.skips?.[name];
    testIf(reason === undefined, reason ?? "")(name, body, BOOT_TIMEOUT_MS);
  };
  const capabilities = subject.make().capabilities(subject);
  const can = (capability: Capability) => capabilities.has(capability);
  const image = crypto.getRandomValues(new Uint8Array(65536));
  const imageBytes = Buffer.concat(Array<Uint8Array>(5).fill(image)).subarray(0, IMAGE_BYTES);
  const noTap = tapMissing();
  let fixture: MachineFixture;
  let machine: Machine;
  let guest: GuestChannel;
  let tap: TestTap | undefined;
  let scratchPath: string;

  beforeAll(async () => {
    const growth = {
      ...(can("vcpu-hotplug") ? { maxVcpus: 3 } : {}),
      ...(can("memory-hotplug") ? { maxMemoryMib: 320 } : {}),
    };
    tap = noTap === undefined ? openTestTap() : undefined;
    fixture = await MachineFixture.make(subject, growth);
    const lower = fixture.file("lower.disk", imageBytes);
    const scratch = fixture.file("scratch.disk", new Uint8Array(64 * 1024));
    scratchPath = scratch.path;
    const network = tap ? [networkSpec("net0", tap, "02:00:00:00:00:10", 1400)] : [];
    Object.assign(fixture.spec, {
      devices: [
        { kind: "block", id: "lower", serial: "hako-lower", fd: lower.readOnlyFd, readOnly: true },
        { kind: "block", id: "scratch", serial: "hako-scratch", fd: scratch.writableFd, readOnly: false },
        ...network,
      ],
    });
    machine = await fixture.machine();
    guest = await fixture.boot();
  }, BOOT_TIMEOUT_MS);

  afterAll(async () => {
    await fixture?.[Symbol.asyncDispose]();
    tap?.[Symbol.dispose]();
  });

  contract("the agent channel carries bytes in both directions in order", async () => {
    const lines = Array.from({ length: 50 }, (_, index) => `${index}-${"x".repeat(2000)}`);
    const answers = await Promise.all(lines.map((line) => guest.request(`echo ${line}`)));
    expect(answers).toEqual(lines);
  });

  contract(
    "the guest finds its disks by serial, read-only ones as such, sizes in whole sectors",
    async () => {
      const disks = (await guest.request("blocks")).split(" ").sort();
      expect(disks).toEqual([
        `hako-lower:${Math.ceil(IMAGE_BYTES / SECTOR)}:1`,
        `hako-scratch:${(64 * 1024) / SECTOR}:0`,
      ]);
    },
  );

  contract("a disk holds the file's bytes and zeros up to the sector's end", async () => {
    const padded = Buffer.concat([imageBytes, Buffer.alloc(SECTOR - (IMAGE_BYTES % SECTOR))]);
    expect(await guest.request("hash hako-lower")).toBe(`${padded.length} ${fnv1a(padded)}`);
  });

  contract("a write to a read-only disk is refused and leaves the file as it was", async () => {
    expect(await guest.send("write hako-lower")).toStartWith("error");
    expect(Buffer.compare(readFileSync(scratchPath.replace("scratch", "lower")), imageBytes)).toBe(0);
  });

  contract("a write to a writable disk is in the file once the guest has flushed it", async () => {
    await guest.request("write hako-scratch");
    expect([...readFileSync(scratchPath).subarray(0, SECTOR)]).toEqual(Array<number>(SECTOR).fill(0x5a));
  });

  contract("the guest has a hardware random number generator", async () => {
    expect(await guest.request("random")).toMatch(/^virtio_rng\.\d+ 16$/);
  });

  contract("the console is kept without the control characters that steer a terminal", async () => {
    await guest.request("print \u001b[31mred\u001b[0m\u0007 mark-1");
    // "\r\n" on the wire; between the two bytes the text looks complete already.
    await until(() => machine.consoleTail(8) === "mark-1\n");
    expect(machine.consoleTail()).toContain("red mark-1\n");
  });

  contract("a guest that floods its console costs no more than 64 KiB and still answers", async () => {
    const { floodKib = 256 } = subject;
    await guest.request(`flood ${floodKib}`);
    const last = String(floodKib * 16 - 1).padStart(63, "0");
    await until(() => machine.consoleTail().includes(last));
    expect(machine.consoleTail().length).toBeLessThanOrEqual(64 * 1024);
    expect(await guest.request("echo alive")).toBe("alive");
  });

  contract("a paused guest does not answer, a resumed one goes on where it was", async () => {
    const before = Number(await guest.request("ticks"));
    await machine.pause();
    let answered = false;
    const answer = guest.send("ticks").finally(() => {
      answered = true;
    });
    await Bun.sleep(300);
    expect(answered).toBe(false);
    await machine.resume();
    expect(Number((await answer).slice(3))).toBeGreaterThanOrEqual(before);
    expect(await guest.request("echo resumed")).toBe("resumed");
  });

  contract("calls in the wrong state are refused", async () => {
    await expectCode(machine.start(), "FAILED_PRECONDITION");
    await expectCode(machine.resume(), "FAILED_PRECONDITION");
    await machine.pause();
    await expectCode(machine.pause(), "FAILED_PRECONDITION");
    await machine.resume();
  });

  const networkTest = testIf(noTap === undefined, noTap ?? "");
  networkTest("a network device has its address and MTU, and frames pass in both directions", async () => {
    if (!tap) throw new Error("no TAP device");
    expect(await guest.request("interfaces")).toBe("eth0=02:00:00:00:00:10=1400");
    await exchangeFrames(guest, tap, "eth0");
  });

  if (can("network-hotplug")) {
    networkTest(
      "a network device of two queues can be plugged in, used and unplugged",
      async () => {
        using other = openTestTap(2);
        await machine.attach(networkSpec("net1", other, "02:00:00:00:00:11"));
        await untilAsync(async () =>
          (await guest.request("interfaces")).includes("eth1=02:00:00:00:00:11=1500"),
        );
        await exchangeFrames(guest, other, "eth1");
        await machine.detach("net1");
        expect(await guest.request("interfaces")).not.toContain("02:00:00:00:00:11");
      },
      BOOT_TIMEOUT_MS,
    );
  }

  const present = async (serial: string) => (await guest.request("blocks")).includes(`${serial}:`);

  if (can("block-hotplug")) {
    contract("a disk can be plugged in, read and unplugged, again and again", async () => {
      const bytes = Buffer.from("hot plugged".padEnd(4096, "."));
      const { readOnlyFd } = fixture.file("hot.disk", bytes);
      const disk = { kind: "block", id: "hot", serial: "hako-hot", fd: readOnlyFd, readOnly: true } as const;
      for (let round = 0; round < 3; round++) {
        await machine.attach(disk);
        await untilAsync(() => present("hako-hot"));
        expect(await guest.request("hash hako-hot")).toBe(`4096 ${fnv1a(bytes)}`);
        await machine.detach("hot");
        expect(await present("hako-hot")).toBe(false);
      }
    });

    contract("a disk of the start can be unplugged", async () => {
      await machine.detach("scratch");
      expect(await present("hako-scratch")).toBe(false);
    });

    contract("ids and serials in use, unknown ids and bad files are refused without a trace", async () => {
      const { readOnlyFd } = fixture.file("refused.disk", Buffer.alloc(512));
      const disk = {
        kind: "block",
        id: "refused",
        serial: "hako-refused",
        fd: readOnlyFd,
        readOnly: true,
      } as const;
      await expectCode(machine.attach({ ...disk, id: "lower" }), "ALREADY_EXISTS");
      await expectCode(machine.attach({ ...disk, serial: "hako-lower" }), "ALREADY_EXISTS");
      await expectCode(machine.attach({ ...disk, serial: "x".repeat(21) }), "INVALID_ARGUMENT");
      await expectCode(machine.attach({ ...disk, readOnly: false }), "FAILED_PRECONDITION");
      await expectCode(machine.detach("refused"), "NOT_FOUND");
      await machine.attach(disk);
      await machine.detach("refused");
    });

    contract("a full machine refuses one more disk and is as before once some are unplugged", async () => {
      const { readOnlyFd } = fixture.file("many.disk", Buffer.alloc(512));
      const ids: string[] = [];
      let refusal: unknown;
      while (refusal === undefined && ids.length < 64) {
        const id = `many-${ids.length}`;
        const disk = { kind: "block", id, serial: id, fd: readOnlyFd, readOnly: true } as const;
        refusal = await machine.attach(disk).then(
          () => void ids.push(id),
          (error) => error,
        );
      }
      expect((refusal as HakoError).code).toBe("RESOURCE_EXHAUSTED");
      const last = ids.at(-1) ?? "";
      await untilAsync(() => present(last));
      for (const id of ids) await machine.detach(id);
      expect(await present("many-0")).toBe(false);
    });
  } else {
    contract("plugging disks is refused as not implemented", async () => {
      const { readOnlyFd } = fixture.file("hot.disk", Buffer.alloc(512));
      const disk = { kind: "block", id: "hot", serial: "hako-hot", fd: readOnlyFd, readOnly: true } as const;
      await expectCode(machine.attach(disk), "UNIMPLEMENTED");
      await expectCode(machine.detach("lower"), "UNIMPLEMENTED");
    });
  }

  if (can("vcpu-hotplug")) {
    contract("vCPUs can be plugged in and out", async () => {
      expect(await guest.request("cpus")).toBe("1");
      expect(await machine.resizeVcpus(3)).toBe(3);
      await untilAsync(async () => (await guest.request("cpus")) === "3");
      expect(await machine.resizeVcpus(1)).toBe(1);
      expect(await guest.request("cpus")).toBe("1");
      await expectCode(machine.resizeVcpus(4), "OUT_OF_RANGE");
    });
  } else {
    contract("plugging vCPUs is refused as not implemented", async () => {
      await expectCode(machine.resizeVcpus(2), "UNIMPLEMENTED");
    });
  }

  const memory = async () => {
    const [totalKib = 0, freeKib = 0] = (await guest.request("memory")).split(" ").map(Number);
    return { totalMib: totalKib / 1024, freeMib: freeKib / 1024 };
  };

  if (can("memory-hotplug")) {
    contract("memory can be plugged in and out", async () => {
      const before = await memory();
      expect(await machine.resizeMemory(320)).toBe(320);
      await untilAsync(async () => (await memory()).totalMib > before.totalMib + 180);
      expect(await machine.resizeMemory(128)).toBe(128);
      expect((await memory()).totalMib).toBeLessThan(before.totalMib + 16);
      await expectCode(machine.resizeMemory(321), "OUT_OF_RANGE");
    });
  }

  if (can("balloon")) {
    contract("the balloon takes memory from the guest and gives it back", async () => {
      const before = await memory();
      expect(await machine.resizeMemory(96)).toBe(96);
      expect(before.freeMib - (await memory()).freeMib).toBeGreaterThan(24);
      expect(await machine.resizeMemory(128)).toBe(128);
      // A guest that reports free pages to the host holds them back for a moment.
      await untilAsync(async () => (await memory()).freeMib > before.freeMib - 8);
    });
  }
}

function networkSpec(id: string, tap: TestTap, macAddress: string, mtu?: number): NetworkSpec {
  return { kind: "network", id, tapFds: tap.fds, macAddress, ...(mtu === undefined ? {} : { mtu }) };
}

/** A frame from the guest arrives on the TAP, and one from there in the guest. */
async function exchangeFrames(guest: GuestChannel, tap: TestTap, guestInterface: string): Promise<void> {
  using socket = new PacketSocket(tap.interfaceName);
  const received = guest.request(`exchange ${guestInterface} from-the-guest`);
  expect(await socket.receive()).toBe("from-the-guest");
  socket.send("from-the-host");
  expect(await received).toBe("from-the-host");
}

export async function expectCode(promise: Promise<unknown>, code: HakoError["code"]): Promise<void> {
  const outcome = await promise.then(
    () => "no error",
    (error: HakoError) => error.code ?? error,
  );
  expect(outcome).toBe(code);
}

function until(condition: () => boolean): Promise<void> {
  return untilAsync(async () => condition());
}

/** For what happens a moment later; the test's own time limit ends the wait. */
async function untilAsync(condition: () => Promise<boolean>): Promise<void> {
  while (!(await condition())) await Bun.sleep(10);
}
