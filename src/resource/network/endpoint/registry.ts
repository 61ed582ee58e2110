import { HakoError } from "#base/error.ts";
import type { NetworkNamespace } from "#linux/netlink/namespace.ts";
import type { ScannedInterface } from "#resource/network/scan.ts";
import type { Endpoint, EndpointFactory, EndpointOptions } from "./endpoint.ts";
import { linkEndpoints, sharedLinkEndpoints } from "./link.ts";
import { physicalEndpoints } from "./physical.ts";

const FACTORIES: readonly EndpointFactory[] = [linkEndpoints, sharedLinkEndpoints, physicalEndpoints];

/** Throws UNIMPLEMENTED for a kind of link that no machine can take. */
export function openEndpoint(
  namespace: NetworkNamespace,
  found: ScannedInterface,
  options: EndpointOptions,
): Endpoint | undefined {
  const kind = found.link.kind ?? "physical";
  const factory = FACTORIES.find(({ kinds }) => kinds.includes(kind));
  if (factory) return factory.open(namespace, found, options);
  const known = FACTORIES.flatMap(({ kinds }) => kinds).join(", ");
  throw new HakoError(
    "UNIMPLEMENTED",
    `Cannot give network link "${found.link.name}" of kind "${kind}" to a machine: known kinds are ${known}`,
  );
}
