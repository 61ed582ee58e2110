import { parse, TomlError } from "smol-toml";
import * as v from "valibot";
import { HakoError } from "#base/error.ts";
import { type Config, DEFAULT_CONFIG } from "./config.ts";

const { runtime, qemu, agent, network, log } = DEFAULT_CONFIG;

const wholeNumber = (min: number, max: number) =>
  v.pipe(v.number(), v.integer(), v.minValue(min), v.maxValue(max));
const ipv4Network = v.pipe(
  v.string(),
  v.regex(
    /^\d{1,3}(\.\d{1,3}){3}\/\d{1,2}$/,
    'Invalid network: expected an IPv4 network such as "10.251.0.0/16"',
  ),
);

/** The file's tables and keys; Kata's names where Kata has the setting. A key that nobody reads is an error. */
const schema = v.strictObject({
  runtime: v.optional(
    v.strictObject({ hypervisor_name: v.optional(v.picklist(["auto", "qemu"]), runtime.hypervisorName) }),
    {},
  ),
  hypervisor: v.optional(
    v.strictObject({
      qemu: v.optional(
        v.strictObject({
          path: v.optional(v.string(), qemu.path),
          kernel: v.optional(v.string(), qemu.kernel),
          machine_type: v.optional(v.picklist(["microvm", "q35"]), qemu.machineType),
          kernel_params: v.optional(v.string(), ""),
          default_vcpus: v.optional(wholeNumber(1, 256), qemu.defaultVcpus),
          default_memory: v.optional(wholeNumber(128, 4 * 1024 * 1024), qemu.defaultMemoryMib),
        }),
        {},
      ),
    }),
    {},
  ),
  agent: v.optional(
    v.strictObject({
      kata: v.optional(
        v.strictObject({
          reconnect_timeout_ms: v.optional(wholeNumber(100, 3_600_000), agent.reconnectTimeoutMs),
          create_container_timeout: v.optional(wholeNumber(1, 3600), agent.createContainerTimeoutMs / 1000),
          log_level: v.optional(v.picklist(["trace", "debug", "info", "warn", "error"]), agent.logLevel),
        }),
        {},
      ),
    }),
    {},
  ),
  network: v.optional(
    v.strictObject({
      pool: v.optional(ipv4Network, network.pool),
      mtu: v.optional(wholeNumber(576, 65_535), network.mtu),
    }),
    {},
  ),
  log: v.optional(v.strictObject({ max_bytes: v.optional(wholeNumber(4096, 1 << 30), log.maxBytes) }), {}),
});

/** Checks the text of a configuration file. Throws INVALID_ARGUMENT naming the file and what is wrong where. */
export function parseConfig(text: string, path: string): Config {
  const result = v.safeParse(schema, parseToml(text, path));
  if (!result.success) {
    const [issue] = result.issues;
    const key = v.getDotPath(issue) ?? "(top level)";
    throw new HakoError("INVALID_ARGUMENT", `Configuration "${path}", key "${key}": ${issue.message}`);
  }
  const file = result.output;
  const { qemu: qemuTable } = file.hypervisor;
  return {
    runtime: { hypervisorName: file.runtime.hypervisor_name },
    qemu: {
      path: qemuTable.path,
      kernel: qemuTable.kernel,
      machineType: qemuTable.machine_type,
      kernelParams: qemuTable.kernel_params.split(/\s+/).filter((word) => word !== ""),
      defaultVcpus: qemuTable.default_vcpus,
      defaultMemoryMib: qemuTable.default_memory,
    },
    agent: {
      reconnectTimeoutMs: file.agent.kata.reconnect_timeout_ms,
      createContainerTimeoutMs: file.agent.kata.create_container_timeout * 1000,
      logLevel: file.agent.kata.log_level,
    },
    network: file.network,
    log: { maxBytes: file.log.max_bytes },
  };
}

function parseToml(text: string, path: string): unknown {
  try {
    return parse(text);
  } catch (cause) {
    if (!(cause instanceof TomlError)) throw cause;
    const problem = cause.message.split("\n", 1)[0] ?? "";
    throw new HakoError("INVALID_ARGUMENT", `Configuration "${path}", line ${cause.line}: ${problem}`);
  }
}
