import { networkInterfaces } from "node:os";
import { HakoError } from "#base/error.ts";

/** Four addresses: network, host end, guest end, broadcast. */
const PREFIX_LENGTH = 30;
const ADDRESSES = 4;

/** The addresses of one sandbox's link. */
export interface Subnet {
  readonly hostAddress: string;
  readonly guestAddress: string;
  readonly prefixLength: number;
}

/** An IPv4 network as a range of numbers. */
interface Range {
  readonly first: number;
  readonly last: number;
}

/** The subnets of a pool `a.b.c.d/n`, numbered from 0. Throws INVALID_ARGUMENT when it is no network of at least /30. */
export class SubnetPool {
  readonly #pool: Range;

  constructor(text: string) {
    const pool = parseNetwork(text);
    if (!pool)
      throw new HakoError("INVALID_ARGUMENT", `Network pool "${text}" is not an IPv4 network of /30 or more`);
    this.#pool = pool;
  }

  get size(): number {
    return (this.#pool.last - this.#pool.first + 1) / ADDRESSES;
  }

  subnet(index: number): Subnet {
    const base = this.#pool.first + index * ADDRESSES;
    return { hostAddress: format(base + 1), guestAddress: format(base + 2), prefixLength: PREFIX_LENGTH };
  }

  /** Whether one of the host's own networks has an address of the subnet. */
  isTaken(index: number, hostNetworks: readonly Range[]): boolean {
    const first = this.#pool.first + index * ADDRESSES;
    const last = first + ADDRESSES - 1;
    return hostNetworks.some((network) => network.first <= last && first <= network.last);
  }
}

/** The IPv4 networks that the host's interfaces are in. */
export function findHostNetworks(): Range[] {
  const entries = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
  return entries
    .filter((entry) => entry.family === "IPv4" && entry.cidr)
    .map((entry) => parseNetwork(entry.cidr ?? "", 32))
    .filter((network) => network !== undefined);
}

function parseNetwork(text: string, maxPrefix = PREFIX_LENGTH): Range | undefined {
  const match = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})\/(\d{1,2})$/.exec(text);
  if (!match) return undefined;
  const [a = 0, b = 0, c = 0, d = 0, prefix = 0] = match.slice(1).map(Number);
  if ([a, b, c, d].some((part) => part > 255) || prefix < 8 || prefix > maxPrefix) return undefined;
  const size = 2 ** (32 - prefix);
  const address = ((a * 256 + b) * 256 + c) * 256 + d;
  const first = Math.floor(address / size) * size;
  return { first, last: first + size - 1 };
}

function format(address: number): string {
  return [24, 16, 8, 0].map((shift) => (address >>> shift) & 255).join(".");
}
