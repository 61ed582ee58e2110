import { choice, decimal, flag, text, whole } from "#config/setting.ts";
import type { HypervisorDefaults } from "./hypervisor.ts";

const MAX_MIB = 16 * 1024 * 1024;
const FROM_HOST = "guests of the shim get it from the host's memory controller";

/** vCPUs and memory. */
export function sizeKeys(defaults: HypervisorDefaults) {
  return {
    default_vcpus: decimal(
      "vCPUs of a machine whose containers ask for none; 0 means 1, a negative number or one above the host's CPUs as many as those.",
      1,
      { min: -1, max: 256, annotation: true },
    ),
    overhead_vcpus: decimal("vCPUs added to what the pod asks for, for the guest itself.", 0.2, {
      min: 0,
      max: 64,
    }),
    default_maxvcpus: whole("Highest number of vCPUs; 0: the host's CPUs.", defaults.maxVcpus, {
      min: 0,
      max: 256,
      annotation: "default_max_vcpus",
    }),
    default_memory: whole("Memory of a machine whose containers ask for none.", 256, {
      min: 128,
      max: MAX_MIB,
      unit: "MiB",
      annotation: true,
    }),
    overhead_memory: whole("Memory added to what the pod asks for, for the guest itself.", 64, {
      min: 0,
      max: MAX_MIB,
      unit: "MiB",
    }),
    default_maxmemory: whole("Highest memory; 0: the host's.", 0, {
      min: 0,
      max: MAX_MIB,
      unit: "MiB",
    }),
    memory_slots: whole("How often memory can be plugged.", 10, {
      min: 0,
      max: 256,
      annotation: true,
      without: "memory is plugged through one virtio-mem device",
    }),
    memory_offset: whole("Extra room for an NVDIMM.", 0, {
      min: 0,
      max: Number.MAX_SAFE_INTEGER,
      annotation: true,
      without: "machines have no NVDIMM",
    }),
    enable_mem_prealloc: flag("All memory is touched at the start.", false, {
      annotation: true,
      without: "memory is taken when the guest touches it",
    }),
    enable_hugepages: flag("Guest memory of huge pages.", false, {
      annotation: true,
      without: "memory is taken when the guest touches it, in huge pages where the host makes them",
    }),
    hugepage_type: choice("Kind of huge pages.", "hugetlbfs", {
      options: ["hugetlbfs", "thp"],
      annotation: true,
      without: "memory is taken when the guest touches it, in huge pages where the host makes them",
    }),
    enable_virtio_mem: flag("Memory is plugged by virtio-mem.", false, {
      annotation: true,
      without: "it is, wherever the machine can plug memory",
    }),
    reclaim_guest_freed_memory: flag("Memory that the guest frees goes back to the host.", false, {
      without: "it always does, through the balloon",
    }),
    enable_guest_swap: flag("Swap for containers that ask for it.", false, {
      annotation: true,
      without: FROM_HOST,
    }),
    guest_swap_path: text("Directory of swap files.", "/run/kata-containers/swap", { without: FROM_HOST }),
    guest_swap_size_percent: whole("Size of swap files.", 100, {
      min: 0,
      max: 1000,
      unit: "per cent of the memory",
      without: FROM_HOST,
    }),
    guest_swap_create_threshold_secs: whole("Age of a sandbox that gets swap.", 60, {
      min: 0,
      max: 86_400,
      unit: "seconds",
      without: FROM_HOST,
    }),
  };
}
