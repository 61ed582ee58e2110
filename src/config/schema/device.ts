import { choice, flag, whole } from "#config/setting.ts";

const NO_LIMIT = "limits of traffic belong to the host's qdiscs and to cgroups";
const NO_PASSTHROUGH = "no driver passes host devices through yet";
const MAX_RATE = Number.MAX_SAFE_INTEGER;

/** Buses and network devices. */
export function deviceKeys() {
  return {
    default_bridges: whole("PCI bridges.", 1, {
      min: 0,
      max: 5,
      without: "the driver makes the slots it needs",
    }),
    cold_plug_vfio: choice("Where a host device is put.", "no-port", {
      options: ["no-port", "root-port"],
      without: NO_PASSTHROUGH,
    }),
    pcie_root_port: whole("PCIe root ports.", 0, {
      min: 0,
      max: 16,
      annotation: true,
      without: "the driver makes the slots it needs",
    }),
    pcie_switch_port: whole("PCIe switch ports.", 0, {
      min: 0,
      max: 16,
      annotation: true,
      without: "the driver makes the slots it needs",
    }),
    enable_iommu: flag("The guest has an IOMMU.", false, { annotation: true, without: NO_PASSTHROUGH }),
    enable_iommu_platform: flag("virtio devices go through it.", false, {
      annotation: true,
      without: NO_PASSTHROUGH,
    }),
    disable_vhost_net: flag("The monitor moves packets, not the host's kernel.", false, {
      annotation: true,
      without: "vhost-net is used where the host has it",
    }),
    network_queues: whole("Queues of each network device, at most one a vCPU.", 1, {
      min: 1,
      max: 256,
      annotation: true,
    }),
    rx_rate_limiter_max_rate: whole("Limit of incoming traffic.", 0, {
      min: 0,
      max: MAX_RATE,
      unit: "bits a second",
      annotation: true,
      without: NO_LIMIT,
    }),
    tx_rate_limiter_max_rate: whole("Limit of outgoing traffic.", 0, {
      min: 0,
      max: MAX_RATE,
      unit: "bits a second",
      annotation: true,
      without: NO_LIMIT,
    }),
  };
}
