import type { NetworkNamespace } from "#linux/netlink/namespace.ts";
import type { GuestInterface } from "#resource/network/guest-interface.ts";
import type { ModelName } from "#resource/network/model/model.ts";
import type { NetworkDevice } from "#resource/network/network-device.ts";
import type { ScannedInterface } from "#resource/network/scan.ts";

/**
 * One interface of a sandbox, made ready for a machine. Order: a factory opens it (the namespace is changed from then
 * on), a machine gets `device`, the guest is told `guest`, and whoever holds it disposes of it once the machine has
 * let go: the namespace is as before then, as far as it still exists. Disposing never throws for a namespace that is gone.
 */
export interface Endpoint extends Disposable {
  /** `veth`, `macvlan` … */
  readonly kind: string;
  /** In the namespace; undefined for one that has no link there. */
  readonly linkIndex: number | undefined;
  readonly device: NetworkDevice;
  readonly guest: GuestInterface;
}

/** What may differ from one sandbox to the next. */
export interface EndpointOptions {
  readonly model: ModelName;
  /** Queues of each device. */
  readonly queues: number;
  /** For host devices; `/sys` outside of tests. */
  readonly sysfs?: string;
}

/** Makes endpoints of links of some kinds. */
export interface EndpointFactory {
  /** The kernel's names of the drivers that it serves; `physical` stands for a link of hardware. */
  readonly kinds: readonly string[];
  /** Undefined where the model gives the guest no interface. On failure nothing is left in the namespace. */
  open(namespace: NetworkNamespace, found: ScannedInterface, options: EndpointOptions): Endpoint | undefined;
}
