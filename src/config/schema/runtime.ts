import * as v from "valibot";
import { choice, flag, list, NOT_YET, pattern, tables, text, whole } from "#config/setting.ts";

export const HYPERVISOR_NAMES = [
  "auto",
  "builtin",
  "qemu",
  "clh",
  "firecracker",
  "acrn",
  "remote",
  "openvmm",
] as const;

/** `[runtime]` */
export const runtimeTable = v.object({
  name: choice("Runtime handler.", "virt_container", {
    options: ["virt_container", "linux_container", "wasm_container"],
    annotation: true,
  }),
  hypervisor_name: choice(
    "Virtual machine monitor; auto is the first that can work on this host. Without the key, the one whose table is the only one in a Kata file.",
    "auto",
    { options: HYPERVISOR_NAMES, annotation: true },
  ),
  agent_name: choice("Agent.", "kata", {
    options: ["kata"],
    annotation: true,
    without: "there is one kind of agent",
  }),
  enable_debug: flag("Log of the manager at level debug.", false, { without: NOT_YET }),
  log_level: choice("Level of the manager's log.", "info", {
    options: ["trace", "debug", "info", "warn", "error"],
    without: "HAKO_DEBUG sets the level of the log",
  }),
  enable_pprof: flag("Profiles of the manager.", false, {
    annotation: true,
    without: "profiles are Bun's own, --cpu-prof",
  }),
  experimental: list("Names of unfinished features to switch on.", [], {
    annotation: true,
    without: "no unfinished feature is hidden behind a name",
  }),
  internetworking_model: choice(
    "How a network interface of the sandbox's namespace and the machine's device are joined.",
    "tcfilter",
    { options: ["tcfilter", "macvtap", "l3forwarding", "none"], annotation: true },
  ),
  disable_new_netns: flag("The machine stays in the host's network namespace and gets no interface.", false, {
    annotation: true,
  }),
  template: choice(
    "Whether sandboxes are clones of a machine that was booted before, where the monitor can do that: shared maps its memory copy-on-write, so that clones share what they do not change; private gives each its own copy, as pages that tenants share can tell one about another (cache side channels); off boots every machine.",
    "shared",
    { options: ["off", "private", "shared"] },
  ),
  dan_conf: text(
    "Directory with <sandbox id>.json files that name the interfaces of a sandbox.",
    "/run/kata-containers/dans",
  ),
  sandbox_bind_mounts: list(
    'Directories and files of the host that the guest finds in /run/kata-containers/shared/containers/sandbox-mounts, each with ":ro" behind it.',
    [],
  ),
  sandbox_cgroup_only: flag(
    "All processes of a sandbox in its cgroup; if false, what is not a vCPU goes to a cgroup for overhead.",
    true,
    { annotation: true },
  ),
  static_sandbox_resource_mgmt: flag(
    "The machine gets its size once, from the pod's limits; if false, it grows with its containers.",
    true,
  ),
  enable_vcpus_pinning: flag(
    "Each vCPU on a CPU of its own when the pod's cpuset has as many CPUs as the machine.",
    false,
    { annotation: true },
  ),
  enable_tracing: flag("OpenTelemetry traces of the manager.", false, { without: NOT_YET }),
  jaeger_endpoint: text("Where traces go.", "", { without: NOT_YET }),
  jaeger_user: text("User name for jaeger_endpoint.", "", { without: NOT_YET }),
  jaeger_password: text("Password for jaeger_endpoint.", "", { without: NOT_YET }),
  disable_guest_seccomp: flag("Takes the seccomp profile out of every container in a machine.", false, {
    annotation: true,
  }),
  emptydir_mode: choice("Where emptyDir volumes on disk live.", "shared-fs", {
    options: ["shared-fs", "block-plain", "block-encrypted"],
  }),
  vfio_mode: choice("Who drives VFIO devices in the guest.", "guest-kernel", {
    options: ["guest-kernel", "vfio"],
    annotation: true,
    without: "no driver passes host devices through yet",
  }),
  keep_abnormal: flag("Leaves the machine of a broken sandbox running.", false, {
    without: "a broken sandbox is reported and ends",
  }),
  shared_mounts: tables(
    "Mounts that one container of a pod takes from another.",
    {
      name: v.string(),
      src_ctr: v.string(),
      src_path: v.string(),
      dst_ctr: v.string(),
      dst_path: v.string(),
    },
    {
      expects: "tables with the strings name, src_ctr, src_path, dst_ctr and dst_path",
      annotation: true,
      without: "containers share a directory of the guest by an emptyDir volume",
    },
  ),
  use_passfd_io: flag("Streams by passed descriptors.", false, {
    without: "streams go over the agent's connection",
  }),
  passfd_listener_port: whole("vsock port of such streams.", 1027, {
    min: 1,
    max: 65_535,
    without: "streams go over the agent's connection",
  }),
  pod_resource_api_sock: text("Socket of kubelet's PodResources service.", "", {
    without: "no driver passes host devices through yet",
  }),
});

const ipv4Network = /^\d{1,3}(\.\d{1,3}){3}\/\d{1,2}$/;

/** `[network]`, which Kata does not have: the network of `hako run`. */
export const networkTable = v.object({
  pool: pattern(
    "IPv4 network out of which --net tap and nat give every sandbox four addresses.",
    "10.251.0.0/16",
    {
      regex: ipv4Network,
      expects: 'an IPv4 network such as "10.251.0.0/16"',
    },
  ),
  mtu: whole("Largest packet.", 1500, { min: 576, max: 65_535, unit: "bytes" }),
});

/** `[log]`, which Kata does not have. */
export const logTable = v.object({
  max_bytes: whole(
    "Size of a detached container's log; one older file of that size is kept.",
    4 * 1024 * 1024,
    { min: 4096, max: 1 << 30, unit: "bytes" },
  ),
});
