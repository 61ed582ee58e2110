import { HakoError } from "#base/error.ts";
import { findDriverInfo } from "#linux/ethtool.ts";
import { PciDevice } from "#linux/pci-device.ts";
import { toGuestInterface } from "#resource/network/guest-interface.ts";
import type { ScannedInterface } from "#resource/network/scan.ts";
import type { Endpoint, EndpointFactory } from "./endpoint.ts";

/** A link of hardware: the whole PCI device goes to the machine, by vfio-pci, and back to its driver at the end. */
export const physicalEndpoints: EndpointFactory = {
  kinds: ["physical"],
  open(namespace, found, { sysfs }) {
    const bus = findDriverInfo(namespace.fd, found.link.name)?.bus ?? "";
    if (!/^[0-9a-f]{4}:/.test(bus)) {
      throw new HakoError(
        "UNIMPLEMENTED",
        `Cannot give network link "${found.link.name}" to a machine: it is not a PCI device`,
      );
    }
    return openPhysicalEndpoint(new PciDevice(bus, sysfs), found);
  },
};

/** Exported for tests, which have no such hardware but its files. */
export function openPhysicalEndpoint(pci: PciDevice, found: ScannedInterface): Endpoint {
  const { link } = found;
  const macAddress = link.macAddress ?? "";
  const { iommuGroup } = pci;
  try {
    pci.bindVfio();
  } catch (error) {
    pci.restore();
    throw error;
  }
  return {
    kind: "physical",
    linkIndex: undefined,
    device: { kind: "host-device", pciAddress: pci.address, iommuGroup, macAddress, mtu: link.mtu },
    guest: toGuestInterface(found, macAddress),
    [Symbol.dispose]: () => pci.restore(),
  };
}
