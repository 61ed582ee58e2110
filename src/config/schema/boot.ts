import * as v from "valibot";
import { choice, flag, list, tables, text, whole } from "#config/setting.ts";
import type { HypervisorDefaults } from "./hypervisor.ts";

const OWN_GUEST = "the guest's files travel in the executable";
const OWN_ROOT = "the guest's root is an EROFS image that travels in the executable";

/** What a machine boots, and what it is. */
export function bootKeys(defaults: HypervisorDefaults) {
  return {
    kernel: text(
      "A guest kernel (vmlinux with a PVH note, or bzImage) instead of the one in the executable. In a Kata file it means Kata's own kernel and is passed over.",
      "",
      { annotation: true, allowedBy: "valid_kernel_paths" },
    ),
    valid_kernel_paths: list("Globs for an annotation that sets kernel; none allows none.", []),
    initrd: text("Initial RAM disk.", "", { annotation: true, without: OWN_GUEST }),
    image: text("Root file system of the guest.", "", { annotation: true, without: OWN_GUEST }),
    firmware: text("Firmware that boots the machine.", "", {
      annotation: true,
      without: "machines boot the kernel directly; confidential guests, which need firmware, are refused",
    }),
    kernel_params: text("Words added to the guest kernel's command line.", "", { annotation: true }),
    kernel_verity_params: text("dm-verity of Kata's root image.", "", {
      annotation: true,
      without: OWN_ROOT,
    }),
    rootfs_type: choice("File system of Kata's root image.", "erofs", {
      options: ["ext4", "xfs", "erofs"],
      without: OWN_ROOT,
    }),
    vm_rootfs_driver: text("How Kata's root image is attached.", "virtio-blk-pci", { without: OWN_ROOT }),
    guest_extension_images: tables(
      "Read-only images mounted below /run/kata-extensions.",
      { name: v.string(), path: v.string(), verity_params: v.optional(v.string(), "") },
      {
        expects: "tables with the strings name, path and verity_params",
        without: "the guest's parts travel in the executable",
      },
    ),
    machine_type: text(
      "Machine of the monitor. QEMU: microvm starts faster; q35 can plug devices, memory and vCPUs into a running machine.",
      defaults.machineType,
      { annotation: true },
    ),
    machine_accelerators: text("Options added to QEMU's machine.", "", {
      annotation: true,
      without: "the options of the machine are settled by the driver",
    }),
    cpu_features: text("Options added to QEMU's CPU.", "", {
      annotation: true,
      without: "the guest has the host's CPU, or all that the emulator can",
    }),
    pflashes: list("Firmware in flash.", [], { without: "machines boot the kernel directly" }),
    entropy_source: text("Where the guest's random numbers come from.", "/dev/urandom", {
      annotation: true,
      without: "the guest's random numbers come from getrandom() of the host",
    }),
    valid_entropy_sources: list("Globs for entropy_source.", [], {
      without: "the guest's random numbers come from getrandom() of the host",
    }),
    disable_nesting_checks: flag("Does not look whether the host is a guest itself.", false, {
      without: "the host's KVM is judged by what it can do",
    }),
    disable_nested_virtualization: flag("The guest gets no virtualization of its own.", false, {
      without: "guests never get it",
    }),
    boot_to_be_template: flag("This machine is to be cloned.", false, { without: "hako factory does that" }),
    boot_from_template: flag("This machine is a clone.", false, { without: "hako factory does that" }),
    memory_path: text("Memory of a saved machine.", "", { without: "hako factory does that" }),
    device_state_path: text("Devices of a saved machine.", "", { without: "hako factory does that" }),
    prefetch_list_path: text("Files for nydus to prefetch.", "", {
      annotation: "prefetch_files.list",
      without: "images are EROFS on local disks",
    }),
    guest_memory_dump_path: text("Where a panicking guest's memory is written.", "", {
      without: "a guest's memory is not written to the host's disk",
    }),
    guest_memory_dump_paging: flag("Such a dump with page tables.", false, {
      without: "a guest's memory is not written to the host's disk",
    }),
    disable_selinux: flag("No SELinux label for the monitor.", false, {
      without: "hako sets no SELinux labels",
    }),
    selinux_label: text("SELinux label of the monitor.", "", { without: "hako sets no SELinux labels" }),
    disable_guest_selinux: flag("No SELinux in the guest.", true, {
      without: "the guest kernel has no SELinux",
    }),
    disable_seccomp: flag("Starts the monitor without its own seccomp filters.", false, {
      without: "a monitor keeps its filters",
    }),
    seccomp_sandbox: text("Value of QEMU's -sandbox.", "", { without: "the driver settles the filter" }),
    rootless: flag("The monitor runs as a user of its own. A machine with it is refused.", false, {
      annotation: true,
    }),
    rootless_user: v.optional(
      v.object({
        uid: whole("User id.", 0, { min: 0, max: 2 ** 32 - 1, without: "rootless is refused" }),
        gid: whole("Group id.", 0, { min: 0, max: 2 ** 32 - 1, without: "rootless is refused" }),
        groups: v.optional(
          v.pipe(
            v.array(v.number()),
            v.description("Further group ids."),
            v.metadata({ expects: "a list of numbers", without: "rootless is refused" }),
          ),
          [],
        ),
        user_name: text("User name.", "", { without: "rootless is refused" }),
      }),
      {},
    ),
  };
}
