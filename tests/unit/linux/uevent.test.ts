import { expect, test } from "bun:test";
import { parseUevent } from "#linux/uevent.ts";

function message(...lines: string[]): Uint8Array {
  return Buffer.from(`${lines.join("\0")}\0`);
}

test("a kernel message is read", () => {
  const event = parseUevent(
    message(
      "add@/devices/pci0000:00/0000:00:02.0/virtio1/block/vda",
      "ACTION=add",
      "SUBSYSTEM=block",
      "DEVNAME=vda",
    ),
  );
  expect(event).toEqual({
    action: "add",
    devpath: "/devices/pci0000:00/0000:00:02.0/virtio1/block/vda",
    subsystem: "block",
    devname: "vda",
  });
});

test("messages of other forms are none", () => {
  expect(parseUevent(message("libudev", "add@/x"))).toBeUndefined();
  expect(parseUevent(message("@/devices/x"))).toBeUndefined();
  expect(parseUevent(message("add@devices/x"))).toBeUndefined();
  expect(parseUevent(new Uint8Array(0))).toBeUndefined();
});

test("a message without a device node has an empty name", () => {
  expect(parseUevent(message("change@/devices/x", "NOEQUALS"))?.devname).toBe("");
});
