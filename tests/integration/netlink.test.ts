import { afterAll, beforeAll, describe, expect } from "bun:test";
import {
  addAddress,
  deleteAddress,
  IFA_F,
  listAddresses,
  RT_SCOPE,
  replaceAddress,
} from "#linux/netlink/address.ts";
import { AF_INET6, parseNetwork } from "#linux/netlink/ip-address.ts";
import {
  addLink,
  changeLink,
  deleteLink,
  findLink,
  findLinkByMac,
  IFF,
  listLinks,
  lookupLink,
} from "#linux/netlink/link.ts";
import { addNeighbor, deleteNeighbor, listNeighbors, NUD, replaceNeighbor } from "#linux/netlink/neighbor.ts";
import {
  addRoute,
  deleteRoute,
  listRoutes,
  RT_TABLE,
  RTNH_F,
  RTPROT,
  replaceRoute,
} from "#linux/netlink/route.ts";
import { NetlinkSocket } from "#linux/netlink/socket.ts";
import { TestNamespace } from "../support/network-namespace.ts";
import { rootTest } from "../support/skip.ts";

interface IpLink {
  ifindex: number;
  ifname: string;
  mtu: number;
  address: string;
  flags: string[];
  operstate: string;
  linkinfo?: { info_kind: string };
  master?: string;
}

interface IpAddress {
  ifindex: number;
  addr_info: {
    local: string;
    prefixlen: number;
    scope: string;
    broadcast?: string;
    label?: string;
    address?: string;
  }[];
}

interface IpRoute {
  dst: string;
  gateway?: string;
  dev?: string;
  metric?: number;
  scope?: string;
  prefsrc?: string;
  flags: string[];
  protocol: string;
  metrics?: { mtu?: number }[];
}

interface IpNeighbor {
  dst: string;
  lladdr?: string;
  state: string[];
}

let namespace: TestNamespace;
let socket: NetlinkSocket;

const isRoot = process.getuid?.() === 0;

beforeAll(async () => {
  if (!isRoot) return;
  namespace = await TestNamespace.create();
  socket = NetlinkSocket.open(namespace.namespace.number);
});

afterAll(async () => {
  socket?.close();
  await namespace?.[Symbol.asyncDispose]();
});

/** A link that is up, with a peer that is up too, and their removal. */
function pair(name: string): { index: number } & Disposable {
  const peer = { name: `${name}-peer`, macAddress: "02:00:5e:00:53:f0" };
  addLink(socket, { name, kind: "veth", macAddress: "02:00:5e:00:53:01", peer });
  const { index } = lookupLink(socket, name);
  changeLink(socket, index, { up: true });
  changeLink(socket, lookupLink(socket, peer.name).index, { up: true });
  return { index, [Symbol.dispose]: () => deleteLink(socket, index) };
}

describe("links", () => {
  rootTest("are listed as ip has them", () => {
    using _ = pair("v0");
    const seen = listLinks(socket).map(({ index, name, mtu, macAddress, kind, flags }) => ({
      index,
      name,
      mtu,
      macAddress,
      kind,
      up: (flags & IFF.UP) !== 0,
    }));
    const expected = namespace.ip<IpLink[]>("link", "show").map((link) => ({
      index: link.ifindex,
      name: link.ifname,
      mtu: link.mtu,
      macAddress: link.address,
      kind: link.linkinfo?.info_kind,
      up: link.flags.includes("UP"),
    }));
    expect(seen).toEqual(expected);
    expect(seen.map(({ name }) => name)).toEqual(["lo", "v0-peer", "v0"]);
  });

  rootTest("are found by name, index and hardware address", () => {
    using link = pair("v1");
    expect(findLink(socket, "v1")?.index).toBe(link.index);
    expect(findLink(socket, link.index)?.name).toBe("v1");
    expect(findLinkByMac(socket, "02:00:5E:00:53:01")?.name).toBe("v1");
    expect(findLinkByMac(socket, "00:00:00:00:00:00")).toBeUndefined();
    expect(findLink(socket, "absent")).toBeUndefined();
    expect(findLink(socket, 9999)).toBeUndefined();
    expect(() => lookupLink(socket, "absent")).toThrow('No network link "absent"');
  });

  rootTest("are changed, all at once or not at all", () => {
    using link = pair("v2");
    changeLink(socket, link.index, { up: false });
    changeLink(socket, link.index, {
      name: "renamed",
      mtu: 9000,
      macAddress: "02:00:5e:00:53:02",
      up: true,
      setFlags: IFF.NOARP,
    });
    const [seen] = namespace.ip<IpLink[]>("link", "show", "renamed");
    expect(seen).toMatchObject({ mtu: 9000, address: "02:00:5e:00:53:02" });
    expect(seen?.flags).toContain("UP");
    expect(seen?.flags).toContain("NOARP");
    changeLink(socket, link.index, { clearFlags: IFF.NOARP });
    expect(lookupLink(socket, "renamed").flags & (IFF.NOARP | IFF.UP)).toBe(IFF.UP);
  });

  rootTest("of a veth pair: one end goes to another namespace", async () => {
    await using other = await TestNamespace.create();
    const peer = { name: "eth0", macAddress: "02:00:5e:00:53:04", namespaceFd: other.namespace.number };
    addLink(socket, { name: "veth0", kind: "veth", mtu: 1400, macAddress: "02:00:5e:00:53:03", peer });
    expect(namespace.ip<IpLink[]>("link", "show", "veth0")[0]).toMatchObject({
      mtu: 1400,
      address: "02:00:5e:00:53:03",
      linkinfo: { info_kind: "veth" },
    });
    expect(other.ip<IpLink[]>("link", "show", "eth0")[0]?.address).toBe("02:00:5e:00:53:04");
    const { index } = lookupLink(socket, "veth0");
    changeLink(socket, index, { namespaceFd: other.namespace.number });
    expect(findLink(socket, "veth0")).toBeUndefined();
    expect(other.ip<IpLink[]>("link", "show", "veth0")).toHaveLength(1);
  });

  rootTest("join a bridge and leave it", () => {
    addLink(socket, { name: "br0", kind: "bridge" });
    const bridge = lookupLink(socket, "br0");
    using link = pair("v3");
    changeLink(socket, link.index, { masterIndex: bridge.index });
    expect(lookupLink(socket, "v3").masterIndex).toBe(bridge.index);
    expect(namespace.ip<IpLink[]>("link", "show", "v3")[0]?.master).toBe("br0");
    changeLink(socket, link.index, { masterIndex: 0 });
    expect(lookupLink(socket, "v3").masterIndex).toBeUndefined();
    deleteLink(socket, bridge.index);
  });

  rootTest("count what goes through them", () => {
    using link = pair("v4");
    changeLink(socket, link.index, { setFlags: IFF.NOARP });
    namespace.run("ip", "address", "add", "192.0.2.1/24", "dev", "v4");
    const before = listLinks(socket).find(({ name }) => name === "v4")?.statistics?.txPackets ?? 0n;
    namespace.run("bash", "-c", "echo x > /dev/udp/192.0.2.255/9 || echo x > /dev/udp/192.0.2.7/9");
    const after = listLinks(socket).find(({ name }) => name === "v4")?.statistics?.txPackets ?? 0n;
    expect(after).toBeGreaterThan(before);
  });

  rootTest("of a kind that the kernel lacks are UNIMPLEMENTED", () => {
    const add = () => addLink(socket, { name: "dummy0", kind: "dummy" });
    if (Bun.spawnSync(["unshare", "--net", "ip", "link", "add", "dummy0", "type", "dummy"]).exitCode !== 0) {
      expect(add).toThrow(expect.objectContaining({ code: "UNIMPLEMENTED" }));
      expect(add).toThrow("Unknown device type");
      return;
    }
    add();
    const { index, kind } = lookupLink(socket, "dummy0");
    expect(kind).toBe("dummy");
    deleteLink(socket, index);
  });

  rootTest("that cannot be made or changed say why", () => {
    using link = pair("v5");
    expect(() => addLink(socket, { name: "v5", kind: "bridge" })).toThrow(
      expect.objectContaining({
        code: "ALREADY_EXISTS",
        message: expect.stringContaining('Cannot add bridge link "v5"'),
      }),
    );
    expect(() => changeLink(socket, 9999, { up: true })).toThrow(
      expect.objectContaining({ code: "NOT_FOUND" }),
    );
    expect(() => changeLink(socket, link.index, { mtu: 4_000_000 })).toThrow(
      "mtu greater than device maximum",
    );
    for (const name of ["", "a/b", "a b", ".", "sixteen-letters-", "a:b"]) {
      expect(() => changeLink(socket, link.index, { name })).toThrow("as the name of a network link");
    }
    expect(() => addLink(socket, { name: "x", kind: "bridge", peer: { name: "y" } })).toThrow(
      "it has no peer",
    );
    expect(() => deleteLink(socket, 1)).toThrow(expect.objectContaining({ code: "UNIMPLEMENTED" }));
  });
});

describe("addresses", () => {
  rootTest("are given, changed, listed and taken away", () => {
    using link = pair("v0");
    const address = { linkIndex: link.index, address: "192.0.2.5", prefixLength: 24 };
    addAddress(socket, { ...address, broadcast: "192.0.2.255", label: "v0:x" });
    addAddress(socket, { ...address, address: "fd00::5", prefixLength: 64, flags: IFA_F.NODAD });
    const [shown] = namespace.ip<IpAddress[]>("address", "show", "dev", "v0");
    expect(shown?.addr_info.filter(({ scope }) => scope === "global")).toMatchObject([
      { local: "192.0.2.5", prefixlen: 24, broadcast: "192.0.2.255", label: "v0:x" },
      { local: "fd00::5", prefixlen: 64 },
    ]);
    expect(() => addAddress(socket, address)).toThrow(expect.objectContaining({ code: "ALREADY_EXISTS" }));
    replaceAddress(socket, address);
    const listed = listAddresses(socket, link.index).filter(({ scope }) => scope === RT_SCOPE.UNIVERSE);
    expect(listed.map((entry) => `${entry.address}/${entry.prefixLength}`)).toEqual([
      "192.0.2.5/24",
      "fd00::5/64",
    ]);
    expect(listed[1]?.flags).toBe(IFA_F.NODAD | IFA_F.PERMANENT);
    deleteAddress(socket, address);
    expect(listAddresses(socket, link.index).map((entry) => entry.address)).not.toContain("192.0.2.5");
    expect(() => deleteAddress(socket, address)).toThrow('Cannot delete IP address "192.0.2.5/24"');
  });

  rootTest("with a peer", () => {
    using link = pair("v1");
    const address = {
      linkIndex: link.index,
      address: "192.0.2.1",
      prefixLength: 32,
      peerAddress: "192.0.2.2",
    };
    addAddress(socket, { ...address, scope: RT_SCOPE.LINK });
    expect(listAddresses(socket, link.index)[0]).toMatchObject({ ...address, scope: RT_SCOPE.LINK });
    expect(namespace.ip<IpAddress[]>("address", "show", "dev", "v1")[0]?.addr_info[0]).toMatchObject({
      local: "192.0.2.1",
      address: "192.0.2.2",
      scope: "link",
    });
  });

  rootTest("that ip has given are read", () => {
    using link = pair("v2");
    namespace.run("ip", "address", "add", "198.51.100.9/30", "brd", "+", "dev", "v2", "scope", "host");
    expect(listAddresses(socket, link.index).find(({ address }) => address === "198.51.100.9")).toMatchObject(
      {
        prefixLength: 30,
        broadcast: "198.51.100.11",
        scope: RT_SCOPE.HOST,
        label: "v2",
      },
    );
  });

  rootTest("of two families and other nonsense are refused", () => {
    const address = { linkIndex: 1, address: "192.0.2.1", prefixLength: 24 };
    expect(() => addAddress(socket, { ...address, broadcast: "fd00::1" })).toThrow("it is no IPv4 address");
    expect(() => addAddress(socket, { ...address, prefixLength: 33 })).toThrow("33");
    expect(() => addAddress(socket, { ...address, address: "x" })).toThrow('"x"');
    expect(() => addAddress(socket, { ...address, linkIndex: 9999 })).toThrow(
      expect.objectContaining({ code: "NOT_FOUND" }),
    );
  });
});

describe("routes", () => {
  rootTest("are made, replaced, listed and taken away", () => {
    using link = pair("v0");
    addAddress(socket, { linkIndex: link.index, address: "192.0.2.5", prefixLength: 24 });
    addRoute(socket, {
      gateway: "192.0.2.1",
      linkIndex: link.index,
      metric: 100,
      source: "192.0.2.5",
      mtu: 1300,
    });
    addRoute(socket, { destination: parseNetwork("198.51.100.7/24"), linkIndex: link.index });
    const shown = namespace.ip<IpRoute[]>("route", "show");
    expect(shown.find(({ dst }) => dst === "default")).toMatchObject({
      gateway: "192.0.2.1",
      dev: "v0",
      metric: 100,
      prefsrc: "192.0.2.5",
      protocol: "static",
      metrics: [{ mtu: 1300 }],
    });
    expect(shown.find(({ dst }) => dst === "198.51.100.0/24")).toMatchObject({ dev: "v0", scope: "link" });
    expect(() => addRoute(socket, { gateway: "192.0.2.2", metric: 100 })).toThrow(
      expect.objectContaining({ code: "ALREADY_EXISTS" }),
    );
    replaceRoute(socket, { gateway: "192.0.2.2", metric: 100 });
    const routes = listRoutes(socket, { linkIndex: link.index });
    expect(routes.filter(({ destination }) => destination === undefined)).toMatchObject([
      { gateway: "192.0.2.2", metric: 100, scope: RT_SCOPE.UNIVERSE },
    ]);
    expect(routes.find(({ destination }) => destination?.address === "198.51.100.0")).toMatchObject({
      scope: RT_SCOPE.LINK,
      table: RT_TABLE.MAIN,
    });
    deleteRoute(socket, { metric: 100 });
    deleteRoute(socket, { destination: parseNetwork("198.51.100.0/24") });
    expect(namespace.ip<IpRoute[]>("route", "show").map(({ dst }) => dst)).toEqual(["192.0.2.0/24"]);
    expect(() => deleteRoute(socket, {})).toThrow("Cannot delete the default route: ");
  });

  rootTest("to a gateway that no route leads to need the onlink flag", () => {
    using link = pair("v1");
    addAddress(socket, { linkIndex: link.index, address: "192.0.2.5", prefixLength: 32 });
    const route = { gateway: "203.0.113.1", linkIndex: link.index };
    expect(() => addRoute(socket, route)).toThrow("Nexthop has invalid gateway");
    addRoute(socket, { ...route, flags: RTNH_F.ONLINK });
    expect(namespace.ip<IpRoute[]>("route", "show", "default")[0]?.flags).toContain("onlink");
    expect(listRoutes(socket).find(({ gateway }) => gateway === "203.0.113.1")?.flags).toBe(RTNH_F.ONLINK);
  });

  rootTest("of IPv6 and of other tables", () => {
    using link = pair("v2");
    addAddress(socket, { linkIndex: link.index, address: "fd00::5", prefixLength: 64, flags: IFA_F.NODAD });
    addRoute(socket, { gateway: "fd00::1", linkIndex: link.index });
    addRoute(socket, { destination: parseNetwork("fd01::1/16"), linkIndex: link.index, table: 1000 });
    const shown = namespace.ip<IpRoute[]>("-6", "route", "show", "table", "all");
    expect(shown.find(({ dst }) => dst === "default")).toMatchObject({ gateway: "fd00::1", dev: "v2" });
    expect(shown.find(({ dst }) => dst === "fd01::/16")).toMatchObject({ table: "1000" });
    const mine = listRoutes(socket, { family: AF_INET6, linkIndex: link.index, table: 1000 });
    expect(mine).toMatchObject([
      { destination: { address: "fd01::", prefixLength: 16 }, protocol: RTPROT.STATIC },
    ]);
    expect(listRoutes(socket, { table: "all" }).length).toBeGreaterThan(listRoutes(socket).length);
    replaceRoute(socket, { gateway: "fd00::2", linkIndex: link.index });
    expect(namespace.ip<IpRoute[]>("-6", "route", "show", "default")[0]?.gateway).toBe("fd00::2");
  });

  rootTest("a thousand of them are listed in several parts", () => {
    using link = pair("v3");
    for (let index = 0; index < 1000; index++) {
      const destination = { address: `10.${index >> 8}.${index & 255}.0`, prefixLength: 24 };
      addRoute(socket, { destination, linkIndex: link.index });
    }
    const listed = listRoutes(socket, { linkIndex: link.index }).filter(({ destination }) =>
      destination?.address.startsWith("10."),
    );
    expect(new Set(listed.map(({ destination }) => destination?.address)).size).toBe(1000);
  });
});

describe("neighbours", () => {
  rootTest("are made, replaced, listed and taken away", () => {
    using link = pair("v0");
    const neighbor = { linkIndex: link.index, address: "192.0.2.9", macAddress: "02:00:5e:00:53:09" };
    addNeighbor(socket, neighbor);
    addNeighbor(socket, { ...neighbor, address: "fd00::9", state: NUD.REACHABLE });
    expect(namespace.ip<IpNeighbor[]>("neighbor", "show", "dev", "v0")).toMatchObject(
      expect.arrayContaining([
        expect.objectContaining({ dst: "192.0.2.9", lladdr: "02:00:5e:00:53:09", state: ["PERMANENT"] }),
        expect.objectContaining({ dst: "fd00::9", state: ["REACHABLE"] }),
      ]),
    );
    expect(() => addNeighbor(socket, neighbor)).toThrow(expect.objectContaining({ code: "ALREADY_EXISTS" }));
    replaceNeighbor(socket, { ...neighbor, macAddress: "02:00:5e:00:53:0a" });
    const listed = listNeighbors(socket, link.index);
    expect(listed.find(({ address }) => address === "192.0.2.9")).toMatchObject({
      macAddress: "02:00:5e:00:53:0a",
      state: NUD.PERMANENT,
    });
    deleteNeighbor(socket, neighbor);
    expect(
      listNeighbors(socket, link.index).map(({ address, state }) => [address, state]),
    ).not.toContainEqual(["192.0.2.9", NUD.PERMANENT]);
  });
});

describe("a socket", () => {
  rootTest("stays in its namespace, and the thread in its own", () => {
    const before = listHome();
    using other = NetlinkSocket.open(namespace.namespace.number);
    expect(listLinks(other).map(({ name }) => name)).toEqual(["lo"]);
    expect(listHome()).toEqual(before);
  });

  rootTest("refuses what is no network namespace", () => {
    expect(() => NetlinkSocket.open(0)).toThrow("Cannot enter the network namespace");
  });
});

function listHome(): number[] {
  using home = NetlinkSocket.open();
  return listLinks(home).map(({ index }) => index);
}
