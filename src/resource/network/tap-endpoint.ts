import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { HakoError } from "#base/error.ts";
import type { Config } from "#config/config.ts";
import { addAddress } from "#linux/netlink/address.ts";
import { changeLink, lookupLink } from "#linux/netlink/link.ts";
import { openMasquerade } from "#linux/netlink/masquerade.ts";
import { NetlinkSocket } from "#linux/netlink/socket.ts";
import { openTap, type Tap } from "#linux/tap.ts";
import { findHostNetworks, type Subnet, SubnetPool } from "./subnet.ts";

/** Tries before the pool counts as used up; with half of it in use forty random ones never all fail. */
const MAX_TRIES = 64;

/** One link between host and guest: a TAP device with the host's address, and the guest's address. */
export interface TapEndpoint extends Disposable {
  readonly tap: Tap;
  readonly subnet: Subnet;
  /** Of the guest's end. */
  readonly macAddress: string;
  readonly mtu: number;
}

/**
 * Makes a TAP device and gives its host end the first address of a free subnet of the pool. The device's name is the
 * subnet's number: who has made the device has the subnet. Nothing persists: the device goes with its last descriptor,
 * however we and the monitor end. With `masquerade` the guest reaches what the host reaches, under the host's address. Throws RESOURCE_EXHAUSTED when no subnet is free, and what `openTap` throws.
 */
export function openTapEndpoint(
  network: Config["network"],
  { masquerade }: { readonly masquerade: boolean },
): TapEndpoint {
  using stack = new DisposableStack();
  const { tap, subnet } = claimSubnet(new SubnetPool(network.pool), network.pool);
  stack.use(tap);
  bringUp(tap.name, subnet, network.mtu);
  if (masquerade) stack.use(openWayOut(tap.name, subnet));
  const held = stack.move();
  return {
    tap,
    subnet,
    macAddress: randomMac(),
    mtu: network.mtu,
    [Symbol.dispose]: () => held.dispose(),
  };
}

/** The host forwards from now on, also for others; that stays, because others may rely on it meanwhile. */
function openWayOut(name: string, { guestAddress, prefixLength }: Subnet): Disposable {
  const forwarding = "/proc/sys/net/ipv4/ip_forward";
  if (readFileSync(forwarding, "utf8").trim() !== "1") writeFileSync(forwarding, "1");
  return openMasquerade({ name, source: { address: guestAddress, prefixLength }, exceptLink: name });
}

function claimSubnet(pool: SubnetPool, text: string): { tap: Tap; subnet: Subnet } {
  const hostNetworks = findHostNetworks();
  const first = randomBelow(pool.size);
  for (let attempt = 0; attempt < Math.min(MAX_TRIES, pool.size); attempt++) {
    const index = (first + attempt * 7919) % pool.size;
    if (pool.isTaken(index, hostNetworks)) continue;
    const tap = tryOpenTap(`hako${index}`);
    if (tap) return { tap, subnet: pool.subnet(index) };
  }
  throw new HakoError(
    "RESOURCE_EXHAUSTED",
    `No free addresses in network pool "${text}": the host or other sandboxes use them (key "pool" of table "network" in the configuration)`,
  );
}

function tryOpenTap(name: string): Tap | undefined {
  try {
    return openTap({ name });
  } catch (error) {
    if (error instanceof HakoError && error.code === "ALREADY_EXISTS") return undefined;
    throw error;
  }
}

function bringUp(name: string, { hostAddress, prefixLength }: Subnet, mtu: number): void {
  disableIpv6(name);
  using socket = NetlinkSocket.open();
  const { index } = lookupLink(socket, name);
  addAddress(socket, { linkIndex: index, address: hostAddress, prefixLength });
  changeLink(socket, index, { up: true, mtu });
}

/** The guest is not trusted: its router advertisements must not give the host addresses and routes. */
function disableIpv6(name: string): void {
  const path = `/proc/sys/net/ipv6/conf/${name}/disable_ipv6`;
  if (!existsSync(path)) return;
  try {
    writeFileSync(path, "1");
  } catch (cause) {
    throw new HakoError("FAILED_PRECONDITION", `Cannot keep IPv6 off TAP device "${name}"`, { cause });
  }
}

/** Unicast, locally administered. */
function randomMac(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(5));
  return ["02", ...Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0"))].join(":");
}

function randomBelow(limit: number): number {
  const [random = 0] = crypto.getRandomValues(new Uint32Array(1));
  return random % limit;
}
