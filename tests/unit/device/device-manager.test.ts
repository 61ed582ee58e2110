import { afterEach, beforeEach, expect, test } from "bun:test";
import { HakoError } from "#base/error.ts";
import { DeviceManager } from "#device/device-manager.ts";
import { setLogSink } from "#telemetry/log.ts";
import { MemoryMachine } from "../../support/memory-machine.ts";

let lines: string[];
let released: string[];
let devices: DeviceManager;
let machine: MemoryMachine;

beforeEach(() => {
  lines = [];
  setLogSink((line) => void lines.push(line));
  released = [];
  devices = new DeviceManager();
  machine = new MemoryMachine();
});

afterEach(() => setLogSink((line) => process.stderr.write(`${line}\n`)));

function owner(name: string): Disposable {
  return { [Symbol.dispose]: () => void released.push(name) };
}

function disk(serial: string) {
  return { serial, fd: 3, readOnly: true, owner: owner(serial) };
}

function card(macAddress: string) {
  return { tapFds: [4], macAddress, owner: owner(macAddress) };
}

/** As a sandbox does it: the planned devices are the machine's. */
function bind(): void {
  for (const spec of devices.specs) machine.devices.set(spec.id, spec);
  devices.bind(machine);
}

test("devices added before the machine become its spec, later ones are plugged in", async () => {
  expect(await devices.addDisk(disk("guest"))).toMatchObject({ id: "disk0", status: "planned" });
  expect(await devices.addNetwork(card("02:00:00:00:00:01"))).toMatchObject({
    id: "net0",
    status: "planned",
  });
  expect(devices.specs).toEqual([
    { kind: "block", id: "disk0", serial: "guest", fd: 3, readOnly: true },
    { kind: "network", id: "net0", tapFds: [4], macAddress: "02:00:00:00:00:01" },
  ]);
  expect(machine.devices.size).toBe(0);
  bind();
  const late = await devices.addDisk(disk("late"));
  expect(late).toMatchObject({ id: "disk1", status: "attached" });
  expect([...machine.devices.keys()]).toEqual(["disk0", "net0", "disk1"]);
  expect(devices.states).toEqual([
    { id: "disk0", kind: "block", status: "attached", name: "guest" },
    { id: "net0", kind: "network", status: "attached", name: "02:00:00:00:00:01" },
    { id: "disk1", kind: "block", status: "attached", name: "late" },
  ]);
});

test("remove() takes a device from the machine and gives back what it used; ids do not come back", async () => {
  bind();
  const { id } = await devices.addDisk(disk("a"));
  await devices.remove(id);
  expect(machine.devices.size).toBe(0);
  expect(released).toEqual(["a"]);
  expect(devices.find(id)).toBeUndefined();
  expect(devices.remove(id)).rejects.toMatchObject({ code: "NOT_FOUND" });
  expect((await devices.addDisk(disk("a"))).id).toBe("disk1");
});

test("remove() of a planned device only releases it", async () => {
  const { id } = await devices.addDisk(disk("a"));
  await devices.remove(id);
  expect(devices.specs).toEqual([]);
  expect(released).toEqual(["a"]);
});

test("a device that cannot be added is released at once and leaves no trace", async () => {
  await devices.addDisk(disk("a"));
  expect(devices.addDisk(disk("a"))).rejects.toMatchObject({ code: "ALREADY_EXISTS" });
  expect(devices.addDisk(disk("x".repeat(21)))).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
  bind();
  machine.nextFailure = new HakoError("UNIMPLEMENTED", "Cannot attach");
  await expect(devices.addDisk(disk("b"))).rejects.toMatchObject({ code: "UNIMPLEMENTED" });
  expect(devices.states.map(({ name }) => name)).toEqual(["a"]);
  expect(released).toEqual(["a", "x".repeat(21), "b"]);
});

test("a device that the guest does not let go of stays until it does", async () => {
  bind();
  const { id } = await devices.addDisk(disk("a"));
  machine.nextFailure = new HakoError("DEADLINE_EXCEEDED", "Cannot unplug");
  await expect(devices.remove(id)).rejects.toMatchObject({ code: "DEADLINE_EXCEEDED" });
  expect(devices.find(id)?.status).toBe("detaching");
  expect(released).toEqual([]);
  await devices.remove(id);
  expect(released).toEqual(["a"]);
});

test("disposing releases the last added first, once, whatever fails, and nothing can be added afterwards", async () => {
  await devices.addDisk(disk("first"));
  await devices.addNetwork({
    tapFds: [4],
    macAddress: "02:00:00:00:00:01",
    owner: {
      async [Symbol.asyncDispose]() {
        await Bun.sleep(1);
        released.push("asynchronous");
      },
    },
  });
  await devices.addDisk({
    ...disk("broken"),
    owner: {
      [Symbol.dispose]() {
        released.push("broken");
        throw new Error("cannot close");
      },
    },
  });
  await devices.addDisk(disk("last"));
  await devices[Symbol.asyncDispose]();
  await devices[Symbol.asyncDispose]();
  expect(released).toEqual(["last", "broken", "asynchronous", "first"]);
  expect(lines.map((line) => JSON.parse(line))).toMatchObject([
    { level: "error", id: "disk1", error: { message: "cannot close" } },
  ]);
  await expect(devices.addDisk(disk("late"))).rejects.toMatchObject({ code: "UNAVAILABLE" });
  expect(released.at(-1)).toBe("late");
});

test("calls at the same time go one after the other", async () => {
  bind();
  const added = await Promise.all(["a", "b", "c"].map((serial) => devices.addDisk(disk(serial))));
  expect(added.map(({ id }) => id)).toEqual(["disk0", "disk1", "disk2"]);
  await Promise.all([devices.remove("disk1"), devices.remove("disk0"), devices.addDisk(disk("d"))]);
  expect([...machine.devices.keys()]).toEqual(["disk2", "disk3"]);
});

test("an aborted call adds nothing", async () => {
  await expect(devices.addDisk(disk("a"), AbortSignal.abort())).rejects.toMatchObject({ code: "CANCELLED" });
  expect(devices.specs).toEqual([]);
  expect(released).toEqual(["a"]);
});

test("a second machine is refused", () => {
  bind();
  expect(() => devices.bind(machine)).toThrow("they have a machine");
});

test("a restored machine has the devices that it was saved with; all others are plugged in, in order", async () => {
  await devices.addDisk(disk("container"));
  await devices.addDisk({ ...disk("guest"), id: "hako-guest" });
  await devices.addNetwork(card("02:00:00:00:00:01"));
  const [, guest] = devices.specs;
  if (guest) machine.devices.set(guest.id, guest);
  await devices.bindRestored(machine, new Set(["hako-guest"]));
  expect([...machine.devices.keys()]).toEqual(["hako-guest", "disk0", "net0"]);
  expect(devices.states.map(({ status }) => status)).toEqual(["attached", "attached", "attached"]);
  expect(devices.bindRestored(machine, new Set())).rejects.toThrow("they have a machine");
});

test("a device that a restored machine does not take is told, and is given back at the end", async () => {
  await devices.addDisk(disk("container"));
  machine.nextFailure = new HakoError("RESOURCE_EXHAUSTED", "No slot");
  expect(devices.bindRestored(machine, new Set())).rejects.toThrow("No slot");
  await devices[Symbol.asyncDispose]();
  expect(released).toEqual(["container"]);
});
