import * as v from "valibot";
import { flag, list, NOT_YET, text, whole } from "#config/setting.ts";
import { bootKeys } from "./boot.ts";
import { confidentialKeys } from "./confidential.ts";
import { deviceKeys } from "./device.ts";
import { sizeKeys } from "./size.ts";
import { storageKeys } from "./storage.ts";

/** What differs from one monitor to the next when no file says anything. */
export interface HypervisorDefaults {
  readonly machineType: string;
  /** Globs that a path given by an annotation must match. */
  readonly validPaths: readonly string[];
  readonly blockDriver: "virtio-blk-pci" | "virtio-blk-mmio";
  readonly sharedFs: "virtio-fs" | "none";
  readonly maxVcpus: number;
}

/** Annotations that a pod may use unless the file says otherwise; Kata's list. */
const DEFAULT_ANNOTATIONS = [
  "enable_iommu",
  "kernel_params",
  "kernel_verity_params",
  "default_vcpus",
  "default_memory",
];

/** Every monitor has the same keys. */
function hypervisorKeys(defaults: HypervisorDefaults) {
  return {
    path: text(
      "The monitor's executable; empty: searched in PATH and in the usual directories, or the built-in one.",
      "",
      { annotation: true, allowedBy: "valid_hypervisor_paths" },
    ),
    valid_hypervisor_paths: list("Globs for an annotation that sets path.", defaults.validPaths),
    ctlpath: text("Control program of the monitor.", "", { without: "no monitor needs one" }),
    valid_ctlpaths: list("Globs for ctlpath.", [], { without: "no monitor needs a control program" }),
    jailer_path: text("Firecracker's jailer.", "", {
      annotation: true,
      allowedBy: "valid_jailer_paths",
      without: NOT_YET,
    }),
    valid_jailer_paths: list("Globs for an annotation that sets jailer_path.", []),
    ...bootKeys(defaults),
    ...sizeKeys(defaults),
    ...deviceKeys(),
    ...storageKeys(defaults),
    ...confidentialKeys(),
    enable_debug: flag("The monitor's own log at its highest level.", false, {
      without: "what a monitor says is always kept",
    }),
    log_level: text("Level of the monitor's own log.", "info", {
      without: "what a monitor says is always kept",
    }),
    extra_monitor_socket: text("A second control socket for debugging: hmp, qmp or qmp-pretty.", "", {
      without: "a second control socket is a way around the manager",
    }),
    enable_annotations: list(
      "Regular expressions; a pod's annotation io.katacontainers.config.hypervisor.X is taken when one of them matches all of X.",
      DEFAULT_ANNOTATIONS,
    ),
    guest_hook_path: text("Directory of the guest image with OCI hooks.", "", {
      annotation: true,
      without: "the guest image has no hooks of its own",
    }),
    hypervisor_socket: text("Socket of the remote hypervisor's service.", "/run/peerpod/hypervisor.sock", {
      without: NOT_YET,
    }),
    hypervisor_timeout: whole("Time for one call to that service.", 600, {
      min: 1,
      max: 86_400,
      unit: "seconds",
      without: NOT_YET,
    }),
    default_gpus: whole("GPUs of a remote machine.", 0, {
      min: 0,
      max: 64,
      annotation: true,
      without: NOT_YET,
    }),
    default_gpu_model: text("Model of those GPUs.", "", { annotation: true, without: NOT_YET }),
    factory: v.optional(
      v.object({
        enable_template: flag("Machines are clones of one that was booted before.", false, {
          without: "runtime.template decides",
        }),
        template_path: text("Where that machine is saved.", "/run/vc/vm/template", {
          without: "templates are kept in hako's state directory",
        }),
      }),
      {},
    ),
  };
}

const QEMU: HypervisorDefaults = {
  machineType: "microvm",
  validPaths: ["/usr/bin/qemu-system-*", "/usr/local/bin/qemu-system-*", "/opt/kata/bin/qemu-system-*"],
  blockDriver: "virtio-blk-pci",
  sharedFs: "virtio-fs",
  maxVcpus: 0,
};

const keys = hypervisorKeys(QEMU);

/** `[hypervisor.<name>]`; the keys are made once for all monitors, because that is most of the time of loading a file. */
function hypervisorTable(defaults: HypervisorDefaults) {
  return v.object({
    ...keys,
    valid_hypervisor_paths: v.optional(keys.valid_hypervisor_paths.wrapped, [...defaults.validPaths]),
    machine_type: v.optional(keys.machine_type.wrapped, defaults.machineType),
    default_maxvcpus: v.optional(keys.default_maxvcpus.wrapped, defaults.maxVcpus),
    block_device_driver: v.optional(keys.block_device_driver.wrapped, defaults.blockDriver),
    shared_fs: v.optional(keys.shared_fs.wrapped, defaults.sharedFs),
  });
}

/** `[hypervisor]` */
export const hypervisorTables = v.object({
  builtin: v.optional(
    hypervisorTable({
      machineType: "",
      validPaths: [],
      blockDriver: "virtio-blk-mmio",
      sharedFs: "none",
      maxVcpus: 0,
    }),
    {},
  ),
  qemu: v.optional(hypervisorTable(QEMU), {}),
  clh: v.optional(
    hypervisorTable({
      machineType: "",
      validPaths: [
        "/usr/bin/cloud-hypervisor",
        "/usr/local/bin/cloud-hypervisor",
        "/opt/kata/bin/cloud-hypervisor",
      ],
      blockDriver: "virtio-blk-pci",
      sharedFs: "virtio-fs",
      maxVcpus: 0,
    }),
    {},
  ),
  firecracker: v.optional(
    hypervisorTable({
      machineType: "",
      validPaths: ["/usr/bin/firecracker", "/usr/local/bin/firecracker", "/opt/kata/bin/firecracker"],
      blockDriver: "virtio-blk-mmio",
      sharedFs: "none",
      maxVcpus: 32,
    }),
    {},
  ),
  acrn: v.optional(
    hypervisorTable({
      machineType: "",
      validPaths: ["/usr/bin/acrn-dm"],
      blockDriver: "virtio-blk-pci",
      sharedFs: "none",
      maxVcpus: 0,
    }),
    {},
  ),
  remote: v.optional(
    hypervisorTable({
      machineType: "",
      validPaths: [],
      blockDriver: "virtio-blk-pci",
      sharedFs: "none",
      maxVcpus: 32,
    }),
    {},
  ),
  openvmm: v.optional(
    hypervisorTable({
      machineType: "",
      validPaths: ["/usr/bin/openvmm"],
      blockDriver: "virtio-blk-pci",
      sharedFs: "virtio-fs",
      maxVcpus: 0,
    }),
    {},
  ),
});
