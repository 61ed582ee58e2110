import { isIPv6 } from "node:net";
import { IPFamily } from "#proto/types.ts";

/** How the agent protocol names the family of a textual address. */
export function ipFamily(address: string): IPFamily {
  return isIPv6(address) ? IPFamily.v6 : IPFamily.v4;
}
