import type { NetworkNamespace } from "#linux/netlink/namespace.ts";
import type { Tap } from "#linux/tap.ts";
import type { ScannedInterface } from "#resource/network/scan.ts";

export type ModelName = "tcfilter" | "macvtap" | "l3forwarding" | "none";

/** A TAP device that a model has joined with a link. Disposing takes both apart and the device away. */
export interface Connection extends Disposable {
  readonly tap: Tap;
  /** Of the guest's end. */
  readonly macAddress: string;
}

/**
 * How a link of a namespace and the device of a machine are joined. `connect` makes the device in the namespace; on
 * failure nothing is left of it. Throws with the device's name and the kernel's error.
 */
export interface NetworkModel {
  readonly name: ModelName;
  /** Undefined: the guest gets no interface. */
  connect(namespace: NetworkNamespace, found: ScannedInterface, queues: number): Connection | undefined;
}

/** What a machine's device is called in its namespace, after the link that it belongs to. */
export function deviceName(linkIndex: number): string {
  return `hako${linkIndex}`;
}
