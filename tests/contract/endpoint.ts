import { afterAll, afterEach, beforeAll, describe, expect } from "bun:test";
import type { Endpoint } from "#resource/network/endpoint/endpoint.ts";
import type { TapDevice } from "#resource/network/network-device.ts";
import { GuestStack } from "../support/guest-stack.ts";
import { TestNamespace } from "../support/network-namespace.ts";
import type { testIf } from "../support/skip.ts";

/** Two namespaces that an endpoint joins: the sandbox's, and one with the hosts that its guest wants to reach. */
export interface EndpointPlace {
  readonly pod: TestNamespace;
  readonly outside: TestNamespace;
}

/** A kind of endpoint, and what this suite has to know of it. */
export interface EndpointSubject {
  readonly name: string;
  readonly test: ReturnType<typeof testIf>;
  /** `Endpoint.kind` */
  readonly kind: string;
  readonly ipv6: boolean;
  /**
   * Makes the namespaces' links. The pod's is called `eth0` and has {@link GUEST}; outside has {@link OUTSIDE} on the
   * same wire, and {@link BEYOND} behind itself.
   */
  prepare(place: EndpointPlace): void;
  /** Opens it with so many queues, where the kind can have several. */
  open(place: EndpointPlace, queues: number): Endpoint & Disposable;
}

export const GUEST = { address: "192.0.2.2/24", address6: "fd00:db8::2/64" } as const;
export const OUTSIDE = { address: "192.0.2.1/24", address6: "fd00:db8::1/64" } as const;
export const BEYOND = { address: "203.0.113.1", address6: "fd00:db9::1" } as const;
export const MTU = 1400;
const ADDRESS_OF = (network: string) => network.split("/")[0] ?? "";

/** What every endpoint of a TAP kind has to hold, with real packets. */
export function endpointContract(subject: EndpointSubject): void {
  const { test } = subject;

  describe(`endpoint ${subject.name}`, () => {
    let place: EndpointPlace;
    const opened: Disposable[] = [];

    beforeAll(async () => {
      if (process.getuid?.() !== 0) return;
      place = { pod: await TestNamespace.create(), outside: await TestNamespace.create() };
      place.outside.run("ip", "link", "set", "lo", "up");
      place.outside.run("ip", "address", "add", `${BEYOND.address}/32`, "dev", "lo");
      place.outside.run("ip", "address", "add", `${BEYOND.address6}/128`, "dev", "lo", "nodad");
      subject.prepare(place);
    });
    afterEach(() => {
      for (const endpoint of opened.splice(0)) endpoint[Symbol.dispose]();
    });
    afterAll(async () => {
      await place?.pod[Symbol.asyncDispose]();
      await place?.outside[Symbol.asyncDispose]();
    });

    const open = (queues = 1) => {
      const endpoint = subject.open(place, queues);
      opened.push(endpoint);
      return endpoint;
    };
    const tapOf = ({ device }: Endpoint): TapDevice => {
      if (device.kind !== "tap") throw new Error(`A device of kind ${device.kind}`);
      return device;
    };

    test("tells the guest what the namespace has", () => {
      const { guest, kind, device } = open();
      expect(kind).toBe(subject.kind);
      expect(guest).toMatchObject({ name: "eth0", mtu: MTU, macAddress: device.macAddress });
      const addresses = guest.addresses.map(({ address, prefixLength }) => `${address}/${prefixLength}`);
      expect(addresses.sort()).toEqual([GUEST.address, ...(subject.ipv6 ? [GUEST.address6] : [])].sort());
      const [defaultRoute] = guest.routes.filter(({ destination, family }) => !destination && family === 2);
      expect(defaultRoute?.gateway).toBe(ADDRESS_OF(OUTSIDE.address));
      const special = guest.routes.find(({ destination }) => destination?.address === "198.51.100.0");
      expect(special).toMatchObject({ gateway: ADDRESS_OF(OUTSIDE.address), mtu: 1200 });
      expect(guest.neighbors).toMatchObject([{ address: "192.0.2.99", macAddress: "02:00:5e:00:53:99" }]);
    });

    test("carries packets of the full size in both directions, and to networks beyond", async () => {
      const endpoint = open();
      await using guest = await GuestStack.create(tapOf(endpoint).tapFds, endpoint.guest);
      const full = String(MTU - 28);
      await place.outside.exec("busybox", "ping", "-c2", "-w20", "-s", full, ADDRESS_OF(GUEST.address));
      await guest.namespace.exec("busybox", "ping", "-c1", "-w20", "-s", full, ADDRESS_OF(OUTSIDE.address));
      await guest.namespace.exec("busybox", "ping", "-c1", "-w20", BEYOND.address);
      if (!subject.ipv6) return;
      await place.outside.exec("busybox", "ping", "-6", "-c1", "-w20", ADDRESS_OF(GUEST.address6));
      await guest.namespace.exec("busybox", "ping", "-6", "-c1", "-w20", BEYOND.address6);
    });

    test("carries streams", async () => {
      const endpoint = open();
      await using guest = await GuestStack.create(tapOf(endpoint).tapFds, endpoint.guest);
      const serve = "head -c 300000 /dev/zero | busybox nc -l -p 4242";
      const serving = guest.namespace.exec("sh", "-c", serve);
      const fetch = `until busybox nc ${ADDRESS_OF(GUEST.address)} 4242; do sleep 0.05; done | wc -c`;
      expect((await place.outside.exec("sh", "-c", fetch)).trim()).toBe("300000");
      await serving;
    });

    test("leaves the namespace as it was", () => {
      const before = describeNamespace(place.pod);
      const endpoint = open();
      expect(describeNamespace(place.pod)).not.toEqual(before);
      endpoint[Symbol.dispose]();
      opened.pop();
      expect(describeNamespace(place.pod)).toEqual(before);
    });

    test("has as many queues as asked for", () => {
      const { tapFds } = tapOf(open(3));
      expect(new Set(tapFds).size).toBe(3);
    });
  });
}

/** All that iproute2 tells of a namespace and that does not change by itself. */
export function describeNamespace(namespace: TestNamespace): string {
  return [
    namespace.run("ip", "-details", "address", "show"),
    namespace.run("ip", "route", "show", "table", "all"),
    namespace.run("ip", "-6", "route", "show", "table", "all"),
    namespace.run("ip", "neighbour", "show", "nud", "permanent"),
    namespace.run("tc", "qdisc", "show"),
  ]
    .join("\n")
    .split("\n")
    .filter((line) => !/fe80:|ff00:|valid_lft/.test(line))
    .map((line) => line.replaceAll(/\w*timer +[\d.]+|NO-CARRIER,|,LOWER_UP|\bstate [A-Z]+/g, ""))
    .join("\n");
}
