import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readAttachmentFile } from "#resource/network/attachment-file.ts";
import { openVhostUserEndpoint } from "#resource/network/endpoint/vhost-user.ts";

let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "hako-dan-"));
});
afterAll(() => rmSync(dir, { recursive: true }));

const device = {
  name: "eth0",
  guest_mac: "02:00:5E:00:53:01",
  device: { type: "vhost-user", path: "/run/switch.sock", queue_num: 2, queue_size: 256 },
  network_info: {
    interface: { ip_addresses: ["192.0.2.2/24", "fd00::2/64"], mtu: 1400, ntype: "tuntap", flags: 0 },
    routes: [
      { dest: "", gateway: "192.0.2.1", source: "", scope: 0, flags: 0 },
      { dest: "198.51.100.0/24", gateway: "192.0.2.9", source: "192.0.2.2", scope: 0, flags: 0 },
    ],
    neighbors: [
      { ip_address: "192.0.2.9/24", device: "", state: 0, flags: 0, hardware_addr: "02:00:5e:00:53:09" },
    ],
  },
};

function read(content: unknown) {
  writeFileSync(join(dir, "s1.json"), typeof content === "string" ? content : JSON.stringify(content));
  return readAttachmentFile(dir, "s1");
}

test("without a file there is nothing to attach", () => {
  expect(readAttachmentFile(dir, "no-such")).toBeUndefined();
  expect(() => readAttachmentFile(dir, "../s1")).toThrow("sandbox id");
});

test("a file of Kata's form is read", () => {
  expect(read({ netns: "/run/netns/a", devices: [device] })).toEqual({
    netns: "/run/netns/a",
    interfaces: [
      {
        device: { type: "vhost-user", path: "/run/switch.sock", queues: 2 },
        guest: {
          name: "eth0",
          macAddress: "02:00:5e:00:53:01",
          mtu: 1400,
          flags: 0,
          addresses: [
            { address: "192.0.2.2", prefixLength: 24 },
            { address: "fd00::2", prefixLength: 64 },
          ],
          routes: [
            { gateway: "192.0.2.1", family: 2, scope: 0, flags: 0 },
            {
              destination: { address: "198.51.100.0", prefixLength: 24 },
              gateway: "192.0.2.9",
              source: "192.0.2.2",
              family: 2,
              scope: 0,
              flags: 0,
            },
          ],
          neighbors: [{ address: "192.0.2.9", macAddress: "02:00:5e:00:53:09", state: 0x80, flags: 0 }],
        },
      },
    ],
  });
});

test.each([
  ["{", "is not JSON"],
  [[], 'member "(top level)": expected an object'],
  [{}, 'member "devices": expected a list'],
  [{ devices: [{ ...device, guest_mac: "nonsense" }] }, 'member "devices[0].guest_mac"'],
  [{ devices: [{ ...device, device: { type: "sriov" } }] }, 'expected "vhost-user" or "host-tap"'],
  [
    { devices: [{ ...device, device: { type: "host-tap" } }] },
    'member "devices[0].device.tap_name": expected a string',
  ],
  [
    { devices: [{ ...device, network_info: { interface: { ip_addresses: ["1.2.3"] } } }] },
    'member "devices[0].network_info.interface.ip_addresses[0]"',
  ],
  [
    { devices: [{ ...device, network_info: { routes: [{}] } }] },
    "expected a route with a destination or a gateway",
  ],
  [{ devices: Array(65).fill(device) }, "expected a list of at most 64"],
])("what is wrong is told with its place (%#)", (content, message) => {
  expect(() => read(content)).toThrow(`Network file "${join(dir, "s1.json")}"`);
  expect(() => read(content)).toThrow(message);
});

test("a vhost-user endpoint needs a socket that is there", async () => {
  const [attached] = read({ devices: [device] })?.interfaces ?? [];
  if (!attached) throw new Error("No interface");
  const path = join(dir, "switch.sock");
  expect(() => openVhostUserEndpoint(path, 2, attached.guest)).toThrow(
    expect.objectContaining({ code: "NOT_FOUND" }),
  );
  writeFileSync(path, "");
  expect(() => openVhostUserEndpoint(path, 2, attached.guest)).toThrow("it is none");
  rmSync(path);
  using _server = Bun.listen({ unix: path, socket: { data() {} } });
  using endpoint = openVhostUserEndpoint(path, 2, attached.guest);
  expect(endpoint.device).toEqual({
    kind: "vhost-user",
    socketPath: path,
    macAddress: "02:00:5e:00:53:01",
    mtu: 1400,
    queues: 2,
  });
});
