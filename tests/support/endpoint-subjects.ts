import type { Endpoint } from "#resource/network/endpoint/endpoint.ts";
import type { ModelName } from "#resource/network/model/model.ts";
import { SandboxNetwork } from "#resource/network/sandbox-network.ts";
import { type EndpointPlace, type EndpointSubject, GUEST, MTU, OUTSIDE } from "../contract/endpoint.ts";
import type { TestNamespace } from "./network-namespace.ts";
import type { testIf } from "./skip.ts";

type Test = ReturnType<typeof testIf>;

/** A link of that kind in the pod, whose model is to be `model`. */
export function linkSubject(kind: string, model: ModelName, test: Test): EndpointSubject {
  return {
    name: `${kind} by ${model}`,
    test,
    kind,
    ipv6: model !== "l3forwarding",
    prepare(place) {
      makeLinks(kind, place);
      dress(place.pod);
    },
    open(place, queues) {
      const network = SandboxNetwork.open(place.pod.path, { model, queues });
      return owned(network, () => network.scan());
    },
  };
}

/** A TAP device that was made for the guest, and is given to it by a file. Its other end is outside. */
export function tapSubject(test: Test): EndpointSubject {
  return {
    name: "tap by file",
    test,
    kind: "tap",
    ipv6: true,
    prepare({ pod, outside }) {
      const wire = ["link", "add", "name", "peer0", "mtu", String(MTU), "type", "veth"];
      outside.run("ip", ...wire, "peer", "name", "wire0", "mtu", String(MTU), "netns", pidOf(pod));
      pod.run("ip", "link", "add", "name", "br0", "mtu", String(MTU), "type", "bridge", "forward_delay", "0");
      pod.run("ip", "tuntap", "add", "dev", "tap7", "mode", "tap", "multi_queue");
      pod.run("ip", "link", "set", "tap7", "mtu", String(MTU), "master", "br0");
      pod.run("ip", "link", "set", "wire0", "master", "br0", "up");
      pod.run("ip", "link", "set", "br0", "up");
      setUpOutside(outside, "peer0");
    },
    open(place, queues) {
      const network = SandboxNetwork.open(place.pod.path, { model: "tcfilter", queues });
      return owned(network, () =>
        network.attach({
          interfaces: [
            {
              device: { type: "host-tap", tapName: "tap7", queues: Math.max(queues, 2) },
              guest: {
                name: "eth0",
                macAddress: "02:00:5e:00:53:02",
                mtu: MTU,
                flags: 0,
                addresses: [
                  { address: "192.0.2.2", prefixLength: 24 },
                  { address: "fd00:db8::2", prefixLength: 64 },
                ],
                routes: [
                  { gateway: "192.0.2.1", family: 2, scope: 0, flags: 0 },
                  { gateway: "fd00:db8::1", family: 10, scope: 0, flags: 0 },
                  {
                    destination: { address: "198.51.100.0", prefixLength: 24 },
                    gateway: "192.0.2.1",
                    family: 2,
                    scope: 0,
                    flags: 0,
                    mtu: 1200,
                  },
                ],
                neighbors: [
                  { address: "192.0.2.99", macAddress: "02:00:5e:00:53:99", state: 0x80, flags: 0 },
                ],
              },
            },
          ],
        }),
      );
    },
  };
}

/** The only endpoint of a network, which goes with it. */
function owned(network: SandboxNetwork, find: () => Endpoint[]): Endpoint & Disposable {
  try {
    const endpoints = find();
    const [endpoint] = endpoints;
    if (endpoint === undefined || endpoints.length !== 1) throw new Error(`${endpoints.length} endpoints`);
    return { ...endpoint, [Symbol.dispose]: () => network[Symbol.dispose]() };
  } catch (error) {
    network[Symbol.dispose]();
    throw error;
  }
}

function pidOf(namespace: TestNamespace): string {
  return /^\/proc\/(\d+)\//.exec(namespace.path)?.[1] ?? "";
}

/** `eth0` in the pod, and outside what is on the other end of its wire. */
function makeLinks(kind: string, { pod, outside }: EndpointPlace): void {
  const into = ["netns", pidOf(pod)];
  const mtu = ["mtu", String(MTU)];
  if (kind === "veth") {
    outside.run(
      "ip",
      "link",
      "add",
      "name",
      "peer0",
      ...mtu,
      "type",
      "veth",
      "peer",
      "name",
      "eth0",
      ...mtu,
      ...into,
    );
    setUpOutside(outside, "peer0");
    return;
  }
  outside.run("ip", "link", "add", "name", "peer0", ...mtu, "type", "veth", "peer", "name", "low0", ...mtu);
  outside.run("ip", "link", "set", "low0", "up");
  const words = { vlan: ["id", "5"], macvlan: ["mode", "bridge"], ipvlan: ["mode", "l2"] }[kind] ?? [];
  outside.run("ip", "link", "add", "link", "low0", "name", "eth0", ...mtu, ...into, "type", kind, ...words);
  if (kind === "vlan") {
    outside.run("ip", "link", "set", "peer0", "up");
    outside.run("ip", "link", "add", "link", "peer0", "name", "peer5", ...mtu, "type", "vlan", "id", "5");
  }
  setUpOutside(outside, kind === "vlan" ? "peer5" : "peer0");
}

function setUpOutside(outside: TestNamespace, name: string): void {
  outside.run("ip", "address", "add", OUTSIDE.address, "dev", name);
  outside.run("ip", "address", "add", OUTSIDE.address6, "dev", name, "nodad");
  outside.run("ip", "link", "set", name, "up");
}

/** What a CNI plug-in gives the pod's interface. */
function dress(pod: TestNamespace): void {
  pod.run("ip", "address", "add", GUEST.address, "broadcast", "192.0.2.255", "dev", "eth0");
  pod.run("ip", "address", "add", GUEST.address6, "dev", "eth0", "nodad");
  pod.run("ip", "link", "set", "eth0", "up");
  pod.run("ip", "route", "add", "default", "via", "192.0.2.1", "dev", "eth0");
  pod.run("ip", "-6", "route", "add", "default", "via", "fd00:db8::1", "dev", "eth0");
  pod.run("ip", "route", "add", "198.51.100.0/24", "via", "192.0.2.1", "dev", "eth0", "mtu", "1200");
  pod.run("ip", "neighbour", "add", "192.0.2.99", "lladdr", "02:00:5e:00:53:99", "dev", "eth0");
}
