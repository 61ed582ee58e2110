import { isTable, type TomlTable } from "./document.ts";

/** Something about a file that a person should know, and the key that it is about. */
export interface Notice {
  readonly key: readonly string[];
  readonly text: string;
  /** Where the value is now. */
  readonly movedTo?: readonly string[];
}

type Convert = (value: unknown) => unknown;

interface Renamed {
  readonly to: string;
  readonly convert?: Convert;
}

const toMs: Convert = (value) => (typeof value === "number" ? value * 1000 : value);

/** Names that Kata's Go runtime has for keys of [hypervisor.X]. */
const hypervisorNames: Readonly<Record<string, Renamed>> = {
  seccompsandbox: { to: "seccomp_sandbox" },
  hypervisor_loglevel: { to: "log_level" },
  guest_selinux_label: { to: "selinux_label" },
  dbg_monitor_socket: { to: "extra_monitor_socket" },
  remote_hypervisor_socket: { to: "hypervisor_socket" },
  remote_hypervisor_timeout: { to: "hypervisor_timeout" },
};

const agentNames: Readonly<Record<string, Renamed>> = {
  dial_timeout: { to: "dial_timeout_ms", convert: toMs },
  cdh_api_timeout: { to: "cdh_api_timeout_ms", convert: toMs },
};

/** Keys of the Go runtime that neither Kata's runtime-rs nor hako has, and why. */
const dropped: Readonly<Record<string, string>> = {
  enable_numa: "guests have one NUMA node",
  numa_mapping: "guests have one NUMA node",
  net_rate_limiter_bw_max_rate: "limits of traffic belong to the host's qdiscs",
  net_rate_limiter_bw_one_time_burst: "limits of traffic belong to the host's qdiscs",
  net_rate_limiter_ops_max_rate: "limits of traffic belong to the host's qdiscs",
  net_rate_limiter_ops_one_time_burst: "limits of traffic belong to the host's qdiscs",
  vm_cache_number: "there is no cache of machines, but hako factory",
  vm_cache_endpoint: "there is no cache of machines, but hako factory",
  hot_plug_vfio: "no driver passes host devices through yet",
  hotplug_vfio_on_root_bus: "no driver passes host devices through yet",
  firmware_volume: "machines boot the kernel directly",
  measurement_algo: "confidential guests are refused",
  vhost_user_reconnect_timeout_sec: "no driver attaches vhost-user disks yet",
  use_legacy_serial: "the console is always a legacy serial port",
  msize_9p: "there is no 9p",
  file_mem_backend: "guest memory is always anonymous or a memory file",
  valid_file_mem_backends: "guest memory is always anonymous or a memory file",
  enable_vcpus_pinning_policy: "see enable_vcpus_pinning",
};

/** Other names of tables below [hypervisor]. */
const hypervisorTables: Readonly<Record<string, string>> = {
  dragonball: "builtin",
  "cloud-hypervisor": "clh",
  cloud_hypervisor: "clh",
  fc: "firecracker",
};

/**
 * A file's tree with the old names of keys replaced by those of the schema, and a notice for each. Where both are
 * there the new one wins. With `onlyTableNames` the only table of [hypervisor] names the hypervisor, as in Kata's files.
 */
export function modernize(
  tree: TomlTable,
  onlyTableNames: boolean,
): { readonly tree: TomlTable; readonly notices: readonly Notice[] } {
  const notices: Notice[] = [];
  const result = structuredClone(tree);
  const note: Note = (key, text, movedTo) => {
    notices.push({ key, text, ...(movedTo && { movedTo }) });
  };
  renameTables(result, note);
  const hypervisors = isTable(result.hypervisor) ? result.hypervisor : {};
  for (const [name, table] of Object.entries(hypervisors)) {
    if (isTable(table)) renameKeys(table, hypervisorNames, ["hypervisor", name], note);
  }
  const agent = isTable(result.agent) && isTable(result.agent.kata) ? result.agent.kata : undefined;
  if (agent) renameKeys(agent, agentNames, ["agent", "kata"], note);
  moveFactory(result, hypervisors, note);
  moveRuntimeKeys(result, note);
  moveTimeout(result, note);
  if (onlyTableNames) chooseOnlyHypervisor(result, hypervisors);
  return { tree: result, notices };
}

/** Why a key of the Go runtime means nothing any more; undefined for any other key. */
export function droppedReason(key: string): string | undefined {
  return dropped[key];
}

type Note = (key: readonly string[], text: string, movedTo?: readonly string[]) => void;

function renameTables(tree: TomlTable, note: Note): void {
  const { hypervisor, runtime } = tree;
  if (isTable(hypervisor)) {
    for (const [old, name] of Object.entries(hypervisorTables)) {
      const table = hypervisor[old];
      if (table === undefined) continue;
      delete hypervisor[old];
      hypervisor[name] =
        isTable(table) && isTable(hypervisor[name]) ? { ...table, ...hypervisor[name] } : table;
      note(["hypervisor", old], `the table is called "hypervisor.${name}" here`, ["hypervisor", name]);
    }
  }
  if (!isTable(runtime) || typeof runtime.hypervisor_name !== "string") return;
  const name = hypervisorTables[runtime.hypervisor_name];
  if (name !== undefined) runtime.hypervisor_name = name;
}

function renameKeys(
  table: TomlTable,
  names: Readonly<Record<string, Renamed>>,
  parent: readonly string[],
  note: Note,
): void {
  for (const [old, { to, convert }] of Object.entries(names)) {
    if (!(old in table)) continue;
    const value = table[old];
    delete table[old];
    table[to] ??= convert ? convert(value) : value;
    note([...parent, old], `the key is called "${to}" now`, [...parent, to]);
  }
}

/** Go: [factory] for the one hypervisor of the file; its create_container_timeout is moved on by `moveTimeout`. */
function moveFactory(tree: TomlTable, hypervisors: TomlTable, note: Note): void {
  if (!isTable(tree.factory)) return;
  const { create_container_timeout: timeout, ...factory } = tree.factory;
  if (timeout === undefined) delete tree.factory;
  else tree.factory = { create_container_timeout: timeout };
  if (Object.keys(factory).length === 0) return;
  note(["factory"], 'the table is called "hypervisor.<name>.factory" now');
  for (const table of Object.values(hypervisors)) {
    if (isTable(table)) table.factory = { ...factory, ...(isTable(table.factory) ? table.factory : {}) };
  }
}

function moveRuntimeKeys(tree: TomlTable, note: Note): void {
  const { runtime } = tree;
  if (!isTable(runtime) || runtime.experimental_force_guest_pull === undefined) return;
  const force = runtime.experimental_force_guest_pull === true;
  delete runtime.experimental_force_guest_pull;
  note(["runtime", "experimental_force_guest_pull"], 'write experimental = ["force_guest_pull"] now');
  const others = Array.isArray(runtime.experimental) ? runtime.experimental : [];
  if (force) runtime.experimental = [...others, "force_guest_pull"];
}

/** The timeout counts wherever guides put it: [agent.kata], else [runtime], else [factory] or [hypervisor.X.factory]. */
function moveTimeout(tree: TomlTable, note: Note): void {
  const key = "create_container_timeout";
  const agent = isTable(tree.agent) && isTable(tree.agent.kata) ? tree.agent.kata : {};
  const take = (table: unknown, place: readonly string[]) => {
    if (!isTable(table) || table[key] === undefined) return;
    const value = table[key];
    delete table[key];
    agent[key] ??= value;
    note([...place, key], 'the key belongs to "agent.kata" now', ["agent", "kata", key]);
  };
  take(tree.runtime, ["runtime"]);
  take(tree.factory, ["factory"]);
  if (isTable(tree.factory) && Object.keys(tree.factory).length === 0) delete tree.factory;
  for (const [name, table] of Object.entries(isTable(tree.hypervisor) ? tree.hypervisor : {})) {
    if (isTable(table)) take(table.factory, ["hypervisor", name, "factory"]);
  }
  if (agent[key] === undefined) return;
  tree.agent = { ...(isTable(tree.agent) ? tree.agent : {}), kata: agent };
}

/** Kata's files name their hypervisor by their only table. */
function chooseOnlyHypervisor(tree: TomlTable, hypervisors: TomlTable): void {
  const names = Object.keys(hypervisors);
  if (names.length !== 1) return;
  if (!isTable(tree.runtime)) tree.runtime = {};
  (tree.runtime as TomlTable).hypervisor_name ??= names[0];
}
