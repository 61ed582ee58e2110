import {
  parseBoolean,
  parseChoice,
  parseLogLevel,
  parseNumber,
  parsePort,
  parseServerAddress,
} from "./option-value.ts";
import type { MutableOptions } from "./options.ts";

/** F_SETPIPE_SZ beyond it needs a privilege of its own; Kata's documentation gives no bound. */
const PIPE_SIZE_MAX = 1024 * 1024;
const TIMEOUT_MAX_S = 86_400;
const COUNT_MAX = Number.MAX_SAFE_INTEGER;

/** One option of Kata's agent: its word on the kernel command line, its key in the agent's TOML file, what it sets. */
interface Option {
  readonly word: string;
  /** Undefined where the file has none. */
  readonly key?: string;
  set(options: MutableOptions, text: string): void;
}

const seconds = (what: string, text: string) => parseNumber(what, text, TIMEOUT_MAX_S) * 1000;

/** Settings of the memory agent are named alike in both places. */
function memory(name: string, set: Option["set"]): Option {
  return { word: `agent.mem_agent_${name}`, key: `mem_agent_${name}`, set };
}

const count = (text: string) => BigInt(parseNumber("setting of the memory agent", text, COUNT_MAX));
const small = (text: string) => parseNumber("setting of the memory agent", text, 0xffff_ffff);
const truth = (text: string) => parseBoolean("setting of the memory agent", text);

const memoryOptions: readonly Option[] = [
  memory("enable", (options, text) => {
    options.memoryAgent.enabled = truth(text);
  }),
  memory("memcg_disable", ({ memoryAgent: { memcg } }, text) => {
    memcg.disabled = truth(text);
  }),
  memory("memcg_swap", ({ memoryAgent: { memcg } }, text) => {
    memcg.swap = truth(text);
  }),
  memory("memcg_swappiness_max", ({ memoryAgent: { memcg } }, text) => {
    memcg.swappinessMax = small(text);
  }),
  memory("memcg_period_secs", ({ memoryAgent: { memcg } }, text) => {
    memcg.periodSecs = count(text);
  }),
  memory("memcg_period_psi_percent_limit", ({ memoryAgent: { memcg } }, text) => {
    memcg.periodPsiPercentLimit = small(text);
  }),
  memory("memcg_eviction_psi_percent_limit", ({ memoryAgent: { memcg } }, text) => {
    memcg.evictionPsiPercentLimit = small(text);
  }),
  memory("memcg_eviction_run_aging_count_min", ({ memoryAgent: { memcg } }, text) => {
    memcg.evictionRunAgingCountMin = count(text);
  }),
  memory("compact_disable", ({ memoryAgent: { compact } }, text) => {
    compact.disabled = truth(text);
  }),
  memory("compact_period_secs", ({ memoryAgent: { compact } }, text) => {
    compact.periodSecs = count(text);
  }),
  memory("compact_period_psi_percent_limit", ({ memoryAgent: { compact } }, text) => {
    compact.periodPsiPercentLimit = small(text);
  }),
  memory("compact_psi_percent_limit", ({ memoryAgent: { compact } }, text) => {
    compact.compactPsiPercentLimit = small(text);
  }),
  memory("compact_sec_max", ({ memoryAgent: { compact } }, text) => {
    compact.compactSecMax = count(text);
  }),
  memory("compact_order", ({ memoryAgent: { compact } }, text) => {
    compact.compactOrder = small(text);
  }),
  memory("compact_threshold", ({ memoryAgent: { compact } }, text) => {
    compact.compactThreshold = count(text);
  }),
  memory("compact_force_times", ({ memoryAgent: { compact } }, text) => {
    compact.compactForceTimes = count(text);
  }),
];

/** All options that the command line and the file may set (facts of Kata's agent configuration). */
export const optionTable: readonly Option[] = [
  {
    word: "agent.server_addr",
    key: "server_addr",
    set(options, text) {
      options.server = parseServerAddress(text);
    },
  },
  {
    word: "agent.log",
    key: "log_level",
    set(options, text) {
      options.logLevel = parseLogLevel(text);
    },
  },
  {
    word: "agent.template",
    set(options, text) {
      options.template = parseBoolean("template", text);
    },
  },
  {
    word: "agent.log_vport",
    key: "log_vport",
    set(options, text) {
      options.logPort = parsePort("log port", text);
    },
  },
  {
    word: "agent.debug_console",
    key: "debug_console",
    set(options, text) {
      options.debugConsole = parseBoolean("debug console", text);
    },
  },
  {
    word: "agent.debug_console_vport",
    key: "debug_console_vport",
    set(options, text) {
      options.debugConsolePort = parsePort("port of the debug console", text);
    },
  },
  {
    word: "agent.devmode",
    key: "dev_mode",
    set(options, text) {
      options.developerMode = parseBoolean("developer mode", text);
    },
  },
  {
    word: "agent.trace",
    key: "tracing",
    set(options, text) {
      options.tracing = parseBoolean("tracing", text);
    },
  },
  {
    word: "agent.passfd_listener_port",
    key: "passfd_listener_port",
    set(options, text) {
      options.passfdPort = parsePort("port of standard streams", text);
    },
  },
  {
    word: "agent.hotplug_timeout",
    key: "hotplug_timeout",
    set(options, text) {
      options.hotplugTimeoutMs = seconds("hotplug timeout", text);
    },
  },
  {
    word: "agent.launch_process_timeout",
    key: "launch_process_timeout",
    set(options, text) {
      options.launchProcessTimeoutMs = seconds("launch timeout", text);
    },
  },
  {
    word: "agent.cdh_api_timeout",
    key: "cdh_api_timeout",
    set(options, text) {
      options.cdhApiTimeoutMs = seconds("timeout of the data hub", text);
    },
  },
  {
    word: "agent.image_pull_timeout",
    key: "image_pull_timeout",
    set(options, text) {
      options.imagePullTimeoutMs = seconds("timeout of an image pull", text);
    },
  },
  {
    word: "agent.cdi_timeout",
    key: "cdi_timeout",
    set(options, text) {
      options.cdiTimeoutMs = seconds("timeout of device specifications", text);
    },
  },
  {
    word: "agent.container_pipe_size",
    key: "container_pipe_size",
    set(options, text) {
      options.containerPipeSize = parseNumber("pipe size", text, PIPE_SIZE_MAX);
    },
  },
  {
    word: "agent.visible_cdi_devices",
    key: "visible_cdi_devices",
    set(options, text) {
      options.visibleCdiDevices = parseBoolean("visible devices", text);
    },
  },
  {
    word: "agent.https_proxy",
    key: "https_proxy",
    set(options, text) {
      options.httpsProxy = text;
    },
  },
  {
    word: "agent.no_proxy",
    key: "no_proxy",
    set(options, text) {
      options.noProxy = text;
    },
  },
  {
    word: "agent.guest_components_procs",
    key: "guest_components_procs",
    set(options, text) {
      options.guestComponents = parseChoice("guest components", text, [
        "none",
        "attestation-agent",
        "confidential-data-hub",
        "api-server-rest",
      ]);
    },
  },
  {
    word: "agent.guest_components_rest_api",
    key: "guest_components_rest_api",
    set(options, text) {
      options.guestComponentsRestApi = parseChoice("REST interface", text, [
        "attestation",
        "resource",
        "all",
      ]);
    },
  },
  {
    word: "agent.secure_storage_integrity",
    key: "secure_storage_integrity",
    set(options, text) {
      options.secureStorageIntegrity = parseBoolean("integrity of secure storage", text);
    },
  },
  {
    word: "agent.config_file",
    set(options, text) {
      options.configFile = text;
    },
  },
  {
    word: "hako.policy",
    key: "policy_file",
    set(options, text) {
      options.policy = text;
    },
  },
  {
    word: "hako.data_hub",
    set(options, text) {
      options.dataHub = text;
    },
  },
  {
    word: "hako.timing",
    set(options) {
      options.timing = true;
    },
  },
  ...memoryOptions,
];

/** Words and keys of Kata's agent that others read, or that are the case here anyway. */
export const ignoredOptions: ReadonlySet<string> = new Set([
  "agent.aa_kbc_params",
  "agent.enable_signature_verification",
  "agent.http_proxy",
  "agent.image_policy_file",
  "agent.image_registry_auth",
  "agent.unified_cgroup_hierarchy",
  "cgroup_no_v1",
  "image_registry_auth",
  "supports_seccomp",
  "unified_cgroup_hierarchy",
]);
