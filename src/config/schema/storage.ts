import { choice, flag, list, text, whole } from "#config/setting.ts";
import type { HypervisorDefaults } from "./hypervisor.ts";

const SETTLED = "the driver settles how disks are attached";
const NO_LIMIT = "limits of disks belong to cgroups";
const MAX_RATE = Number.MAX_SAFE_INTEGER;

function rate(meaning: string, unit: string) {
  return whole(meaning, 0, { min: 0, max: MAX_RATE, unit, without: NO_LIMIT });
}

/** Sizes that a disk can have for a sector, or 0 for the file's own. */
function sector(meaning: string, annotation: string) {
  return whole(meaning, 0, { min: 0, max: 65_536, unit: "bytes", annotation, without: SETTLED });
}

/** Disks and shared file systems. */
export function storageKeys(defaults: HypervisorDefaults) {
  return {
    disable_block_device_use: flag("Containers get no disks.", false, {
      annotation: true,
      without: "root file systems are disks",
    }),
    block_device_driver: choice("How disks are attached.", defaults.blockDriver, {
      options: [
        "virtio-blk-pci",
        "virtio-blk-mmio",
        "virtio-blk-ccw",
        "virtio-scsi",
        "virtio-pmem",
        "virtio-blk",
        "virtio-mmio",
        "nvdimm",
      ],
      annotation: true,
      without: SETTLED,
    }),
    block_device_aio: choice("How a monitor reads disks.", "io_uring", {
      options: ["io_uring", "native", "threads"],
      without: SETTLED,
    }),
    block_device_cache_set: flag("The three keys below count.", false, {
      annotation: true,
      without: SETTLED,
    }),
    block_device_cache_direct: flag("Around the host's page cache.", false, {
      annotation: true,
      without: SETTLED,
    }),
    block_device_cache_noflush: flag("Flushes are passed over.", false, {
      annotation: true,
      without: "a guest's flush always reaches the disk",
    }),
    block_device_logical_sector_size: sector("Logical sector.", "blk_logical_sector_size"),
    block_device_physical_sector_size: sector("Physical sector.", "blk_physical_sector_size"),
    queue_size: whole("Entries of a disk's queue.", 128, {
      min: 1,
      max: 32_768,
      annotation: "block_device_queue_size",
      without: SETTLED,
    }),
    num_queues: whole("Queues of a disk.", 1, {
      min: 1,
      max: 256,
      annotation: "block_device_num_queues",
      without: SETTLED,
    }),
    enable_iothreads: flag("Threads of their own for disks.", false, { annotation: true, without: SETTLED }),
    indep_iothreads: whole("Further threads.", 0, { min: 0, max: 64, annotation: true, without: SETTLED }),
    disable_image_nvdimm: flag("Kata's root image is no NVDIMM.", false, {
      annotation: true,
      without: SETTLED,
    }),
    disk_rate_limiter_bw_max_rate: rate("Limit of a disk's bytes.", "bits a second"),
    disk_rate_limiter_bw_one_time_burst: rate("First burst beyond it.", "bits"),
    disk_rate_limiter_ops_max_rate: rate("Limit of a disk's operations.", "operations a second"),
    disk_rate_limiter_ops_one_time_burst: rate("First burst beyond it.", "operations"),
    enable_vhost_user_store: flag("Disks served by other processes.", false, {
      annotation: true,
      without: "no driver attaches vhost-user disks yet",
    }),
    vhost_user_store_path: text("Their sockets.", "/var/run/vhost-user", {
      annotation: true,
      allowedBy: "valid_vhost_user_store_paths",
      without: "no driver attaches vhost-user disks yet",
    }),
    valid_vhost_user_store_paths: list("Globs for vhost_user_store_path.", []),
    shared_fs: choice(
      "How a read-write directory of the host is shared: virtio-fs needs virtiofsd on the host.",
      defaults.sharedFs,
      {
        options: ["virtio-fs", "inline-virtio-fs", "virtio-fs-nydus", "none"],
        annotation: true,
      },
    ),
    virtio_fs_daemon: text("virtiofsd; empty: searched in the usual directories.", "", {
      annotation: true,
      allowedBy: "valid_virtio_fs_daemon_paths",
    }),
    valid_virtio_fs_daemon_paths: list("Globs for an annotation that sets virtio_fs_daemon.", [
      "/usr/libexec/virtiofsd",
      "/usr/lib/qemu/virtiofsd",
      "/opt/kata/libexec/virtiofsd",
    ]),
    virtio_fs_extra_args: list("Arguments added to virtiofsd.", ["--thread-pool-size=1"], {
      annotation: true,
    }),
    virtio_fs_cache: choice("What the guest may cache.", "auto", {
      options: ["never", "metadata", "auto", "always"],
      annotation: true,
    }),
    virtio_fs_cache_size: whole("Window of the host's page cache.", 0, {
      min: 0,
      max: 1024 * 1024,
      unit: "MiB",
      annotation: true,
      without: "virtiofsd shares no window",
    }),
    virtio_fs_queue_size: whole("Entries of the queue.", 1024, { min: 1, max: 1024, without: SETTLED }),
    virtio_fs_is_dax: flag("That window is used.", false, { without: "virtiofsd shares no window" }),
  };
}
