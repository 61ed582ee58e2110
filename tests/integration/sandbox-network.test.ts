/** Networks of prepared namespaces beyond what the endpoint contract holds: peers' eyes, late interfaces, failures. */
import { afterAll, beforeAll, beforeEach, describe, expect } from "bun:test";
import { deleteLink, listLinks, lookupLink } from "#linux/netlink/link.ts";
import { NetworkNamespace } from "#linux/netlink/namespace.ts";
import {
  addIngress,
  addRedirect,
  deleteIngress,
  listQueueingDisciplines,
} from "#linux/netlink/traffic-control.ts";
import { findNetworkSysctl, writeNetworkSysctl } from "#linux/network-sysctl.ts";
import { openTap } from "#linux/tap.ts";
import { SandboxNetwork } from "#resource/network/sandbox-network.ts";
import { describeNamespace } from "../contract/endpoint.ts";
import { TestNamespace } from "../support/network-namespace.ts";
import { testIf } from "../support/skip.ts";
import { tapMissing } from "../support/tap.ts";

const missing = tapMissing();
const tapTest = testIf(missing === undefined, missing ?? "");

interface TcFilter {
  readonly kind: string;
  readonly options?: {
    readonly actions?: readonly { kind: string; mirred_action: string; direction: string; to_dev: string }[];
  };
}

let pod: TestNamespace;
let namespace: NetworkNamespace;

beforeAll(async () => {
  if (missing !== undefined) return;
  pod = await TestNamespace.create();
  namespace = NetworkNamespace.open(pod.path);
});
afterAll(async () => {
  namespace?.[Symbol.dispose]();
  await pod?.[Symbol.asyncDispose]();
});
beforeEach(() => {
  if (missing !== undefined) return;
  const { socket } = namespace;
  for (const { name } of listLinks(socket)) {
    const link = listLinks(socket).find((candidate) => candidate.name === name);
    if (link?.kind !== undefined) deleteLink(socket, link.index);
  }
});

function addVeth(name: string, address: string | undefined, mtu = 1500): void {
  pod.run("ip", "link", "add", name, "mtu", String(mtu), "type", "veth", "peer", "name", `${name}-p`);
  if (address !== undefined) pod.run("ip", "address", "add", address, "dev", name);
  pod.run("ip", "link", "set", name, "up");
  pod.run("ip", "link", "set", `${name}-p`, "up");
}

const open = (model: "tcfilter" | "macvtap" | "l3forwarding" | "none" = "tcfilter") =>
  SandboxNetwork.open(pod.path, { model, queues: 1 });

describe("what iproute2 sees", () => {
  tapTest("tcfilter: an ingress with a filter that redirects everything, on both devices", () => {
    addVeth("eth0", "192.0.2.2/24", 1300);
    using network = open();
    network.scan();
    const tap = `hako${lookupLink(namespace.socket, "eth0").index}`;
    for (const [from, to] of [
      ["eth0", tap],
      [tap, "eth0"],
    ] as const) {
      expect(pod.run("tc", "qdisc", "show", "dev", from)).toContain("qdisc ingress ffff: parent ffff:fff1");
      const filters: TcFilter[] = JSON.parse(
        pod.run("tc", "-json", "filter", "show", "dev", from, "ingress"),
      );
      const actions = filters.flatMap(({ options }) => options?.actions ?? []);
      expect(actions).toMatchObject([
        { kind: "mirred", mirred_action: "redirect", direction: "egress", to_dev: to },
      ]);
      expect(filters.at(-1)?.kind).toBe("u32");
    }
    const details = pod.run("ip", "-details", "link", "show", tap);
    expect(details).toContain("mtu 1300");
    expect(details).toMatch(/tun type tap pi off vnet_hdr on persist off user root/);
    expect(findNetworkSysctl(namespace.fd, `ipv6/conf/${tap}/disable_ipv6`)).toBe("1");
  });

  tapTest("macvtap: a device in passthru mode with the link's own address", () => {
    addVeth("eth0", "192.0.2.2/24", 1300);
    using network = open("macvtap");
    const [endpoint] = network.scan();
    const { index, macAddress } = lookupLink(namespace.socket, "eth0");
    const details = pod.run("ip", "-details", "link", "show", `hako${index}`);
    expect(details).toContain(`hako${index}@eth0`);
    expect(details).toContain("macvtap mode passthru");
    expect(details).toContain("mtu 1300");
    expect(details).toContain(`link/ether ${macAddress}`);
    expect(endpoint?.device).toMatchObject({ kind: "tap", macAddress });
  });

  tapTest("l3forwarding: the address is the guest's, answered for by proxy ARP on both sides", () => {
    addVeth("eth0", "192.0.2.2/24");
    pod.run("ip", "route", "add", "default", "via", "192.0.2.1");
    using network = open("l3forwarding");
    network.scan();
    const tap = `hako${lookupLink(namespace.socket, "eth0").index}`;
    expect(pod.run("ip", "-4", "address", "show", "dev", "eth0")).toBe("");
    const routes = pod.run("ip", "route", "show");
    expect(routes).toContain(`192.0.2.2 dev ${tap}`);
    expect(routes).toContain("192.0.2.0/24 dev eth0");
    expect(routes).toContain("default via 192.0.2.1 dev eth0");
    for (const device of ["eth0", tap])
      expect(findNetworkSysctl(namespace.fd, `ipv4/conf/${device}/proxy_arp`)).toBe("1");
  });
});

describe("SandboxNetwork", () => {
  tapTest("takes several interfaces, leaves loopback, links without address and model none alone", () => {
    addVeth("eth0", "192.0.2.2/24");
    addVeth("eth1", "198.51.100.2/24");
    addVeth("bare", undefined);
    {
      using network = open();
      expect(network.scan().map(({ guest }) => guest.name)).toEqual(["eth0", "eth1"]);
    }
    using none = open("none");
    expect(none.scan()).toEqual([]);
    expect(listLinks(namespace.socket).filter(({ kind }) => kind === "tun")).toEqual([]);
  });

  tapTest("finds interfaces that come later, each once", () => {
    addVeth("eth0", "192.0.2.2/24");
    using network = open();
    expect(network.scan()).toHaveLength(1);
    expect(network.scan()).toEqual([]);
    addVeth("eth1", "198.51.100.2/24");
    expect(network.scan().map(({ guest }) => guest.name)).toEqual(["eth1"]);
    expect(network.scan()).toEqual([]);
  });

  tapTest("of several interfaces none stays joined when one cannot be", () => {
    addVeth("eth0", "192.0.2.2/24");
    pod.run("ip", "link", "add", "br0", "type", "bridge");
    pod.run("ip", "address", "add", "203.0.113.2/24", "dev", "br0");
    const before = describeNamespace(pod);
    using network = open();
    expect(() => network.scan()).toThrow('Cannot give network link "br0" of kind "bridge" to a machine');
    expect(describeNamespace(pod)).toBe(before);
  });

  tapTest("a device name in use is an error with the device's name, and nothing stays", () => {
    addVeth("eth0", "192.0.2.2/24");
    const name = `hako${lookupLink(namespace.socket, "eth0").index}`;
    using _occupied = openTap({ name, namespaceFd: namespace.fd });
    const before = describeNamespace(pod);
    for (const model of ["tcfilter", "macvtap", "l3forwarding"] as const) {
      using network = open(model);
      expect(() => network.scan()).toThrow(name);
      expect(describeNamespace(pod)).toBe(before);
    }
  });

  tapTest("what a manager that died has left is replaced", () => {
    addVeth("eth0", "192.0.2.2/24");
    const { index } = lookupLink(namespace.socket, "eth0");
    addIngress(namespace.socket, index);
    addRedirect(namespace.socket, index, lookupLink(namespace.socket, "eth0-p").index);
    using network = open();
    expect(network.scan()).toHaveLength(1);
    const filters: TcFilter[] = JSON.parse(
      pod.run("tc", "-json", "filter", "show", "dev", "eth0", "ingress"),
    );
    expect(filters.flatMap(({ options }) => options?.actions ?? []).map(({ to_dev }) => to_dev)).toEqual([
      `hako${index}`,
    ]);
  });

  tapTest("interfaces that are gone before the end are no error", () => {
    addVeth("eth0", "192.0.2.2/24");
    for (const model of ["tcfilter", "macvtap", "l3forwarding"] as const) {
      if (!listLinks(namespace.socket).some(({ name }) => name === "eth0")) addVeth("eth0", "192.0.2.2/24");
      const network = open(model);
      network.scan();
      deleteLink(namespace.socket, lookupLink(namespace.socket, "eth0").index);
      network[Symbol.dispose]();
      expect(listLinks(namespace.socket).filter(({ kind }) => kind !== "veth")).toHaveLength(1);
    }
  });

  tapTest("a path that is no network namespace is told", () => {
    expect(() => SandboxNetwork.open("/run/netns/no-such", { model: "tcfilter", queues: 1 })).toThrow(
      'Cannot open network namespace "/run/netns/no-such"',
    );
    expect(() => SandboxNetwork.open("/etc/passwd", { model: "tcfilter", queues: 1 })).toThrow(
      'Cannot use "/etc/passwd" as a network namespace',
    );
  });

  tapTest("a setting that the kernel lacks is an error with its name, unless it is optional", () => {
    const name = "ipv4/conf/no-such/proxy_arp";
    expect(() => writeNetworkSysctl(namespace.fd, name, "1")).toThrow(
      'Cannot set "net.ipv4.conf.no-such.proxy_arp"',
    );
    writeNetworkSysctl(namespace.fd, name, "1", { optional: true });
  });
});

describe("traffic control", () => {
  tapTest("an ingress is made once and goes with its filters", () => {
    addVeth("eth0", undefined);
    const { index } = lookupLink(namespace.socket, "eth0");
    expect(deleteIngress(namespace.socket, index)).toBe(false);
    addIngress(namespace.socket, index);
    expect(() => addIngress(namespace.socket, index)).toThrow(
      expect.objectContaining({ code: "ALREADY_EXISTS" }),
    );
    expect(listQueueingDisciplines(namespace.socket, index)).toContain("ingress");
    expect(deleteIngress(namespace.socket, index)).toBe(true);
    expect(() => addRedirect(namespace.socket, index, index)).toThrow("by a u32 filter");
    expect(() => addIngress(namespace.socket, 9999)).toThrow(expect.objectContaining({ code: "NOT_FOUND" }));
  });
});
