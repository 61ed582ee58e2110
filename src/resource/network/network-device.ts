/**
 * A network device as a machine is to get it. It says nothing of any monitor: whoever has one can serve it to any that
 * takes such devices. What it names stays the endpoint's, which closes it when it is released.
 */
export type NetworkDevice = TapDevice | VhostUserDevice | HostDevice;

/** Open queues of a TAP or macvtap device, each frame behind a virtio header of 12 bytes. */
export interface TapDevice {
  readonly kind: "tap";
  readonly tapFds: readonly number[];
  readonly macAddress: string;
  readonly mtu: number;
}

/** Another process moves the packets (vhost-user protocol, as the server of the socket). */
export interface VhostUserDevice {
  readonly kind: "vhost-user";
  readonly socketPath: string;
  readonly macAddress: string;
  readonly mtu: number;
  readonly queues: number;
}

/** A PCI device of the host, bound to vfio-pci. */
export interface HostDevice {
  readonly kind: "host-device";
  /** `0000:3b:00.1` */
  readonly pciAddress: string;
  readonly iommuGroup: number;
  readonly macAddress: string;
  readonly mtu: number;
}
