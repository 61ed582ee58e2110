/** Every key of Kata's runtime-rs and of its Go runtime, each accepted or refused as hako's schema says. */
import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { findSetting, listSettings } from "#config/catalog.ts";
import defaults from "#config/default.json";
import { checkConfig } from "#config/parse.ts";
import { defaultText } from "#config/write-default.ts";

/** Table, key, a good value, a bad one. */
type Row = readonly [table: string, key: string, good: unknown, bad: unknown];

const H = "hypervisor.qemu";
const strings = (table: string, ...keys: string[]): Row[] => keys.map((key) => [table, key, "/x", 1]);
const flags = (table: string, ...keys: string[]): Row[] => keys.map((key) => [table, key, true, "yes"]);
const numbers = (table: string, ...keys: string[]): Row[] => keys.map((key) => [table, key, 1, -3]);
const lists = (table: string, ...keys: string[]): Row[] => keys.map((key) => [table, key, ["a"], "a"]);

const rows: readonly Row[] = [
  ...strings(H, "path", "ctlpath", "jailer_path", "kernel", "initrd", "image", "firmware", "kernel_params"),
  ...strings(
    H,
    "kernel_verity_params",
    "vm_rootfs_driver",
    "cpu_features",
    "extra_monitor_socket",
    "log_level",
  ),
  ...strings(H, "guest_memory_dump_path", "machine_type", "machine_accelerators", "entropy_source"),
  ...strings(H, "vhost_user_store_path", "guest_swap_path", "seccomp_sandbox", "snp_id_block", "snp_id_auth"),
  ...strings(H, "initdata", "guest_hook_path", "selinux_label", "virtio_fs_daemon", "hypervisor_socket"),
  ...strings(H, "default_gpu_model", "memory_path", "device_state_path", "prefetch_list_path"),
  ...lists(
    H,
    "valid_hypervisor_paths",
    "valid_ctlpaths",
    "valid_jailer_paths",
    "valid_vhost_user_store_paths",
  ),
  ...lists(H, "pflashes", "valid_entropy_sources", "enable_annotations", "valid_virtio_fs_daemon_paths"),
  ...lists(H, "virtio_fs_extra_args"),
  ...flags(
    H,
    "disable_nesting_checks",
    "enable_iothreads",
    "disable_block_device_use",
    "disable_image_nvdimm",
  ),
  ...flags(H, "block_device_cache_set", "block_device_cache_direct", "block_device_cache_noflush"),
  ...flags(H, "enable_vhost_user_store", "disable_nested_virtualization", "enable_debug"),
  ...flags(H, "guest_memory_dump_paging", "enable_iommu", "enable_iommu_platform", "rootless"),
  ...flags(H, "reclaim_guest_freed_memory", "enable_mem_prealloc", "enable_hugepages", "enable_virtio_mem"),
  ...flags(H, "enable_guest_swap", "disable_vhost_net", "disable_seccomp", "confidential_guest"),
  ...flags(H, "sev_snp_guest", "disable_selinux", "disable_guest_selinux", "virtio_fs_is_dax"),
  ...flags(H, "boot_to_be_template", "boot_from_template"),
  ...numbers(H, "indep_iothreads", "memory_offset", "queue_size", "num_queues", "default_vcpus"),
  ...numbers(
    H,
    "overhead_vcpus",
    "default_maxvcpus",
    "default_bridges",
    "pcie_root_port",
    "pcie_switch_port",
  ),
  ...numbers(H, "overhead_memory", "default_maxmemory", "memory_slots", "guest_swap_size_percent"),
  ...numbers(H, "guest_swap_create_threshold_secs", "network_queues", "rx_rate_limiter_max_rate"),
  ...numbers(H, "tx_rate_limiter_max_rate", "snp_guest_policy", "tdx_quote_generation_service_socket_port"),
  ...numbers(H, "virtio_fs_cache_size", "virtio_fs_queue_size", "hypervisor_timeout", "default_gpus"),
  ...numbers(H, "disk_rate_limiter_bw_max_rate", "disk_rate_limiter_bw_one_time_burst"),
  ...numbers(H, "disk_rate_limiter_ops_max_rate", "disk_rate_limiter_ops_one_time_burst"),
  [H, "block_device_driver", "virtio-scsi", "ide"],
  [H, "block_device_aio", "native", "posix"],
  [H, "block_device_logical_sector_size", 512, 131_072],
  [H, "block_device_physical_sector_size", 4096, -1],
  [H, "rootfs_type", "xfs", "btrfs"],
  [H, "guest_extension_images", [{ name: "coco", path: "/x", verity_params: "" }], [{ name: 1 }]],
  [H, "cold_plug_vfio", "root-port", "bridge-port"],
  [H, "default_memory", 2048, 64],
  [H, "hugepage_type", "thp", "huge"],
  [H, "shared_fs", "none", "9p"],
  [H, "virtio_fs_cache", "never", "sometimes"],
  [`${H}.rootless_user`, "uid", 1, -1],
  [`${H}.rootless_user`, "gid", 1, -1],
  [`${H}.rootless_user`, "groups", [1], ["a"]],
  [`${H}.rootless_user`, "user_name", "u", 1],
  [`${H}.factory`, "enable_template", true, 1],
  [`${H}.factory`, "template_path", "/x", 1],
  ...flags("agent.kata", "enable_debug", "enable_tracing", "debug_console_enabled", "visible_cdi_devices"),
  ...numbers("agent.kata", "server_port", "log_port", "passfd_listener_port", "dial_timeout_ms"),
  ...numbers(
    "agent.kata",
    "create_container_timeout",
    "cdh_api_timeout_ms",
    "health_check_request_timeout_ms",
  ),
  ...numbers("agent.kata", "container_pipe_size", "launch_process_timeout"),
  ["agent.kata", "reconnect_timeout_ms", 3000, 1],
  ["agent.kata", "log_level", "debug", "loud"],
  ...lists("agent.kata", "kernel_modules"),
  ...strings("agent.kata", "policy"),
  ...flags("agent.kata.mem_agent", "enable", "memcg_disable", "memcg_swap", "compact_disable"),
  ...numbers("agent.kata.mem_agent", "memcg_swappiness_max", "memcg_period_secs"),
  ...numbers("agent.kata.mem_agent", "memcg_period_psi_percent_limit", "memcg_eviction_psi_percent_limit"),
  ...numbers("agent.kata.mem_agent", "memcg_eviction_run_aging_count_min", "compact_period_secs"),
  ...numbers("agent.kata.mem_agent", "compact_period_psi_percent_limit", "compact_psi_percent_limit"),
  ...numbers("agent.kata.mem_agent", "compact_sec_max", "compact_order", "compact_threshold"),
  ...numbers("agent.kata.mem_agent", "compact_force_times"),
  ["runtime", "name", "virt_container", "runc"],
  ["runtime", "hypervisor_name", "qemu", "vmware"],
  ["runtime", "agent_name", "kata", "other"],
  ["runtime", "log_level", "warn", "loud"],
  ["runtime", "internetworking_model", "macvtap", "bridge"],
  ["runtime", "emptydir_mode", "block-plain", "nfs"],
  ["runtime", "vfio_mode", "vfio", "none"],
  [
    "runtime",
    "shared_mounts",
    [{ name: "a", src_ctr: "a", src_path: "/a", dst_ctr: "b", dst_path: "/b" }],
    [{}],
  ],
  ["runtime", "passfd_listener_port", 1027, 0],
  ...flags("runtime", "enable_debug", "enable_pprof", "disable_new_netns", "sandbox_cgroup_only"),
  ...flags("runtime", "static_sandbox_resource_mgmt", "enable_vcpus_pinning", "enable_tracing"),
  ...flags("runtime", "disable_guest_seccomp", "keep_abnormal", "use_passfd_io"),
  ...lists("runtime", "experimental", "sandbox_bind_mounts"),
  ...strings(
    "runtime",
    "dan_conf",
    "jaeger_endpoint",
    "jaeger_user",
    "jaeger_password",
    "pod_resource_api_sock",
  ),
];

/** Go name, where it goes, the value there, the value it becomes. */
const renamed: readonly (readonly [
  table: string,
  key: string,
  to: string,
  value: unknown,
  becomes: unknown,
])[] = [
  [H, "seccompsandbox", `${H}.seccomp_sandbox`, "on", "on"],
  [H, "hypervisor_loglevel", `${H}.log_level`, "warn", "warn"],
  [H, "guest_selinux_label", `${H}.selinux_label`, "l", "l"],
  [H, "dbg_monitor_socket", `${H}.extra_monitor_socket`, "qmp", "qmp"],
  [H, "remote_hypervisor_socket", `${H}.hypervisor_socket`, "/s", "/s"],
  [H, "remote_hypervisor_timeout", `${H}.hypervisor_timeout`, 5, 5],
  ["agent.kata", "dial_timeout", "agent.kata.dial_timeout_ms", 3, 3000],
  ["agent.kata", "cdh_api_timeout", "agent.kata.cdh_api_timeout_ms", 2, 2000],
  ["runtime", "create_container_timeout", "agent.kata.create_container_timeout", 11, 11],
  ["runtime", "experimental_force_guest_pull", "runtime.experimental", true, ["force_guest_pull"]],
];

const gone = [
  "enable_numa",
  "numa_mapping",
  "net_rate_limiter_bw_max_rate",
  "vm_cache_number",
  "hot_plug_vfio",
  "hotplug_vfio_on_root_bus",
  "firmware_volume",
  "measurement_algo",
  "vhost_user_reconnect_timeout_sec",
  "use_legacy_serial",
  "msize_9p",
];

function check(table: string, key: string, value: unknown, dialect: "hako" | "kata" = "hako") {
  return checkConfig([{ path: "/c.toml", text: `[${table}]\n${key} = ${toToml(value)}\n` }], dialect);
}

function toToml(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(toToml).join(", ")}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  const members = Object.entries(value).map(([key, member]) => `${key} = ${toToml(member)}`);
  return `{ ${members.join(", ")} }`;
}

const camel = (part: string) => part.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());

/** Tables of a list have their keys in camel case, too. */
function camelKeys(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(camelKeys);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, member]) => [camel(key), member]));
}

function memberOf(config: unknown, key: string): unknown {
  return key.split(".").reduce((table, part) => (table as Record<string, unknown>)[camel(part)], config);
}

describe("the keys of runtime-rs", () => {
  test.each(rows.map((row) => [`[${row[0]}] ${row[1]}`, row] as const))(
    "%s",
    (_, [table, key, good, bad]) => {
      const name = `${table}.${key}`;
      expect(findSetting(name)).toBeDefined();
      const accepted = check(table, key, good);
      expect(accepted.problems).toEqual([]);
      expect(memberOf(accepted.config, name)).toEqual(camelKeys(good));
      const refused = check(table, key, bad);
      expect(refused.config).toBeUndefined();
      expect(refused.problems).toEqual([
        {
          severity: "error",
          path: "/c.toml",
          line: 2,
          key: name,
          text: expect.stringContaining(`expected ${findSetting(name)?.expects}, found`),
        },
      ]);
    },
  );

  test("this table has every key of the schema, of one hypervisor for all", () => {
    const others = ["network", "log"];
    const known = listSettings()
      .filter(({ key }) => key[0] !== "hypervisor" || key[1] === "qemu")
      .filter(({ key }) => !others.includes(key[0] ?? ""))
      .map(({ key }) => key.join("."));
    const own = ["hypervisor.qemu.valid_kernel_paths", "runtime.template"];
    const told = rows.map(([table, key]) => `${table}.${key}`);
    expect(known.filter((key) => !told.includes(key) && !own.includes(key))).toEqual([]);
  });

  test("all hypervisors have the same keys", () => {
    const of = (name: string) =>
      listSettings()
        .filter(({ key }) => key[1] === name)
        .map(({ key }) => key.slice(2).join("."));
    const names = new Set(
      listSettings().flatMap(({ key }) => (key[0] === "hypervisor" ? [key[1] ?? ""] : [])),
    );
    expect(names.size).toBe(7);
    for (const name of names) expect(of(name)).toEqual(of("qemu"));
  });
});

describe("the names of the Go runtime", () => {
  test.each(renamed)("[%s] %s is %s", (table, key, to, value, becomes) => {
    for (const dialect of ["hako", "kata"] as const) {
      const { config, problems } = check(table, key, value, dialect);
      expect(memberOf(config, to)).toEqual(becomes);
      expect(problems).toHaveLength(1);
      expect(problems[0]).toMatchObject({ severity: "warning", line: 2, key: `${table}.${key}` });
    }
  });

  test("[factory] belongs to the hypervisor", () => {
    const text = "[hypervisor.qemu]\n[factory]\nenable_template = true\n";
    const { config, problems } = checkConfig([{ path: "/c.toml", text }], "kata");
    expect(config?.hypervisor.qemu.factory.enableTemplate).toBe(true);
    expect(problems).toMatchObject([{ severity: "warning", line: 2, key: "factory" }]);
  });

  test.each(gone)("%s means nothing any more", (key) => {
    expect(check(H, key, "x").problems).toMatchObject(
      [{ severity: "error", line: 2, text: /nothing reads it: / }].map((p) => ({
        ...p,
        text: expect.stringMatching(p.text),
      })),
    );
    const kata = check(H, key, "x", "kata");
    expect(kata.config).toBeDefined();
    expect(kata.problems).toMatchObject([{ severity: "warning", line: 2 }]);
  });
});

describe("a file that was written for Kata", () => {
  const text = `
[hypervisor.dragonball]
kernel = "/opt/kata/share/kata-containers/vmlinux-dragonball.container"
image = "/opt/kata/share/kata-containers/kata-containers.img"
default_memory = 2048
no_such_key = """
several = 1
lines"""
another = 1
[agent.kata]
`;

  test("names its hypervisor by its only table, its guest is passed over, unknown keys are warnings", () => {
    const { config, problems } = checkConfig([{ path: "/c.toml", text }], "kata");
    expect(config?.runtime.hypervisorName).toBe("builtin");
    expect(config?.hypervisor.builtin).toMatchObject({ kernel: "", image: "", defaultMemory: 2048 });
    const told = problems.map(({ severity, line, key }) => [severity, line, key]);
    expect(told).toEqual([
      ["warning", 2, "hypervisor.dragonball"],
      ["warning", 3, "hypervisor.builtin.kernel"],
      ["warning", 4, "hypervisor.builtin.image"],
      ["warning", 6, "hypervisor.builtin.no_such_key"],
      ["warning", 9, "hypervisor.builtin.another"],
    ]);
  });

  test("a bad value is an error all the same", () => {
    const { config } = check(H, "default_memory", "much", "kata");
    expect(config).toBeUndefined();
  });

  test("the same text as hako's own file is refused", () => {
    expect(checkConfig([{ path: "/c.toml", text }], "hako").config).toBeUndefined();
  });
});

describe("the schema", () => {
  test("default.json is what it says: bun src/config/write-default.ts", () => {
    expect(defaults as unknown).toEqual(JSON.parse(defaultText()));
  });

  test("every setting has a meaning, and its default is one of its values", () => {
    for (const { key, meaning, expects, fallback } of listSettings()) {
      expect([key.join("."), meaning.length > 3, expects !== "a value"]).toEqual([key.join("."), true, true]);
      expect(fallback).toBeDefined();
    }
  });

  test("a key that is not marked as without effect is read somewhere outside of src/config", () => {
    const src = join(import.meta.dir, "../../../src");
    const files = [...new Bun.Glob("**/*.ts").scanSync(src)].filter(
      (file) => !/^(config|proto)\//.test(file),
    );
    const text = files.map((file) => readFileSync(join(src, file), "utf8")).join("\n");
    expect(readdirSync(src)).toContain("config");
    const unread = listSettings()
      .filter(({ key, without }) => without === undefined && !(key[0] === "hypervisor" && key[1] !== "qemu"))
      .filter(({ key }) => !/^(valid_|enable_annotations)/.test(key.at(-1) ?? ""))
      .filter(({ key }) => !new RegExp(`\\b${camel(key.at(-1) ?? "")}\\b`).test(text))
      .map(({ key }) => key.join("."));
    expect(unread).toEqual([]);
  });
});
