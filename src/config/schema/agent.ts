import * as v from "valibot";
import { flag, list, text, whole } from "#config/setting.ts";

const HOUR_MS = 3_600_000;
const NOT_KATA = "hako's agent has no such option";
const FIXED_PORTS = "the ports are settled by the agent protocol of both sides";

const memAgent = v.optional(
  v.object({
    enable: flag("Reclaims unused memory of the guest.", false, { without: NOT_KATA }),
    memcg_disable: flag("Leaves cgroups alone.", false, { without: NOT_KATA }),
    memcg_swap: flag("Swaps anonymous memory out.", false, { without: NOT_KATA }),
    memcg_swappiness_max: whole("Highest swappiness.", 50, { min: 0, max: 200, without: NOT_KATA }),
    memcg_period_secs: whole("Pause between two runs.", 600, { min: 0, max: 86_400, without: NOT_KATA }),
    memcg_period_psi_percent_limit: whole("Pressure that lets a run wait.", 1, {
      min: 0,
      max: 100,
      without: NOT_KATA,
    }),
    memcg_eviction_psi_percent_limit: whole("Pressure that ends a run.", 1, {
      min: 0,
      max: 100,
      without: NOT_KATA,
    }),
    memcg_eviction_run_aging_count_min: whole("Generations between runs.", 3, {
      min: 0,
      max: 1000,
      without: NOT_KATA,
    }),
    compact_disable: flag("Leaves fragmented memory alone.", false, { without: NOT_KATA }),
    compact_period_secs: whole("Pause between two runs.", 600, { min: 0, max: 86_400, without: NOT_KATA }),
    compact_period_psi_percent_limit: whole("Pressure that lets a run wait.", 1, {
      min: 0,
      max: 100,
      without: NOT_KATA,
    }),
    compact_psi_percent_limit: whole("Pressure that ends a run.", 5, {
      min: 0,
      max: 100,
      without: NOT_KATA,
    }),
    compact_sec_max: whole("Longest run.", 300, { min: 0, max: 86_400, without: NOT_KATA }),
    compact_order: whole("Order of free pages wanted.", 9, { min: 0, max: 20, without: NOT_KATA }),
    compact_threshold: whole("Free pages that start a run.", 1024, {
      min: 0,
      max: 2 ** 32,
      without: NOT_KATA,
    }),
    compact_force_times: whole("Runs until one is forced.", 2 ** 32, {
      min: 0,
      max: Number.MAX_SAFE_INTEGER,
      without: NOT_KATA,
    }),
  }),
  {},
);

/** `[agent.kata]` */
export const agentTable = v.object({
  enable_debug: flag("Logs of the agent at level debug.", false),
  log_level: v.optional(
    v.pipe(
      v.picklist(["trace", "debug", "info", "warn", "error"]),
      v.description("Level of the agent's log, which goes to the machine's console."),
      v.metadata({ expects: 'one of "trace", "debug", "info", "warn", "error"' }),
    ),
    "warn",
  ),
  enable_tracing: flag("Traces of the agent.", false, {
    annotation: true,
    without: "traces are made by the manager",
  }),
  debug_console_enabled: flag("A shell of the guest for the host.", false, { without: NOT_KATA }),
  visible_cdi_devices: flag("Lets the environment of a container choose CDI devices.", false, {
    without: "the guest has no CDI devices",
  }),
  server_port: whole("vsock port of the agent.", 1024, { min: 1, max: 65_535, without: FIXED_PORTS }),
  log_port: whole("vsock port of the log.", 1025, { min: 1, max: 65_535, without: "the log is the console" }),
  passfd_listener_port: whole("vsock port of streams.", 1027, {
    min: 1,
    max: 65_535,
    without: "streams go over the agent's connection",
  }),
  dial_timeout_ms: whole("Longest single attempt to reach the agent.", 10, {
    min: 1,
    max: HOUR_MS,
    unit: "milliseconds",
    without: "attempts end by themselves; reconnect_timeout_ms bounds them all",
  }),
  reconnect_timeout_ms: whole("Time until the agent must have answered for the first time.", 30_000, {
    min: 100,
    max: HOUR_MS,
    unit: "milliseconds",
  }),
  create_container_timeout: whole(
    "Time for making a container, from the first byte that is pulled or copied to the container created in the guest; the start of the machine does not count. Read here, in [runtime] and in [factory], the first of them wins.",
    30,
    { min: 1, max: 86_400, unit: "seconds" },
  ),
  cdh_api_timeout_ms: whole("Longest call to the confidential data hub.", 50_000, {
    min: 1,
    max: HOUR_MS,
    unit: "milliseconds",
    annotation: true,
  }),
  health_check_request_timeout_ms: whole("Longest answer to a health check.", 90_000, {
    min: 1,
    max: HOUR_MS,
    unit: "milliseconds",
    without: "a machine or agent that ends is noticed at once, without checks",
  }),
  kernel_modules: list("Kernel modules with parameters to be loaded in the guest.", [], {
    annotation: true,
    without: "hako's guest kernel has no modules, its drivers are built in",
  }),
  container_pipe_size: whole("Size of a container's pipes, 0 for the kernel's.", 0, {
    min: 0,
    max: 1 << 30,
    unit: "bytes",
    annotation: true,
    without: NOT_KATA,
  }),
  launch_process_timeout: whole("Time for starting helper processes of the guest.", 0, {
    min: 0,
    max: 86_400,
    unit: "seconds",
    without: "hako's guest starts no helper processes",
  }),
  policy: text("Path of a Rego policy, or its text, that the agent is given before anything else.", ""),
  mem_agent: memAgent,
});
