import type { ScannedInterface } from "./scan.ts";

/** What a guest is told about an interface. The guest finds the device by `macAddress`. */
export interface GuestInterface {
  readonly name: string;
  readonly macAddress: string;
  readonly mtu: number;
  /** IFF_* flags of the link (linux/if.h). */
  readonly flags: number;
  readonly addresses: readonly { readonly address: string; readonly prefixLength: number }[];
  readonly routes: readonly GuestRoute[];
  readonly neighbors: readonly GuestNeighbor[];
}

export interface GuestRoute {
  /** The default route when absent. */
  readonly destination?: { readonly address: string; readonly prefixLength: number };
  readonly gateway?: string;
  readonly source?: string;
  /** AF_INET or AF_INET6. */
  readonly family: number;
  /** RT_SCOPE_* */
  readonly scope: number;
  /** RTNH_F_* */
  readonly flags: number;
  readonly mtu?: number;
}

export interface GuestNeighbor {
  readonly address: string;
  readonly macAddress: string;
  /** NUD_* and NTF_* */
  readonly state: number;
  readonly flags: number;
}

/** State of a next hop, which is not a property of the route. */
const NEXT_HOP_STATE = 1 | 16;

/** The interface as the namespace has it. */
export function toGuestInterface(found: ScannedInterface, macAddress: string): GuestInterface {
  const { link } = found;
  return {
    name: link.name,
    macAddress,
    mtu: link.mtu,
    flags: link.flags,
    addresses: found.addresses.map(({ address, prefixLength }) => ({ address, prefixLength })),
    routes: found.routes.map(({ destination, gateway, source, family, scope, flags, mtu }) => ({
      ...(destination && { destination }),
      ...(gateway !== undefined && { gateway }),
      ...(source !== undefined && { source }),
      family,
      scope,
      flags: flags & ~NEXT_HOP_STATE,
      ...(mtu !== undefined && { mtu }),
    })),
    neighbors: found.neighbors.flatMap(({ address, macAddress: mac, state, flags }) =>
      mac === undefined ? [] : [{ address, macAddress: mac, state, flags }],
    ),
  };
}
