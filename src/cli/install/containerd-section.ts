import { parse, TomlError } from "smol-toml";
import { HakoError } from "#base/error.ts";

const BEGIN = '# BEGIN hako (written by "hako install", removed by "hako install --uninstall")';
const END = "# END hako";
const RUNTIME = "hako";
const TYPE = "io.containerd.hako.v2";
/** The CRI plug-in's name by the version of the configuration. */
const PLUGINS: Readonly<Record<number, string>> = {
  2: "io.containerd.grpc.v1.cri",
  3: "io.containerd.cri.v1.runtime",
};

/**
 * containerd's configuration with hako as a runtime handler of the CRI plug-in, or without it. All else stays as it is,
 * byte for byte. Throws INVALID_ARGUMENT for a text that is no configuration, ALREADY_EXISTS when somebody else has
 * written a handler of that name.
 */
export function editContainerdConfig(text: string, path: string, wanted: "installed" | "removed"): string {
  const without = removeSection(text, path);
  if (wanted === "removed") return without;
  const { version, runtimes } = inspect(without, path);
  if (runtimes.includes(RUNTIME)) {
    throw new HakoError(
      "ALREADY_EXISTS",
      `"${path}" has a runtime "${RUNTIME}" that hako did not write: remove it, or leave --containerd out`,
    );
  }
  const plugin = PLUGINS[version];
  if (plugin === undefined) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `"${path}" is a configuration of version ${version}: hako knows 2 and 3 (containerd config migrate)`,
    );
  }
  const base = without === "" ? "version = 2\n" : without;
  const result = `${base.endsWith("\n") ? base : `${base}\n`}${section(plugin)}`;
  // What we append must not say again what an inline table has said.
  inspect(result, path);
  return result;
}

function section(plugin: string): string {
  return [
    BEGIN,
    `[plugins."${plugin}".containerd.runtimes.${RUNTIME}]`,
    `  runtime_type = "${TYPE}"`,
    "  privileged_without_host_devices = true",
    '  pod_annotations = ["io.katacontainers.*"]',
    '  container_annotations = ["io.katacontainers.*"]',
    END,
    "",
  ].join("\n");
}

function removeSection(text: string, path: string): string {
  const begin = text.indexOf(`${BEGIN}\n`);
  if (begin < 0) return text;
  const end = text.indexOf(`${END}\n`, begin);
  if (end < 0) {
    throw new HakoError("INVALID_ARGUMENT", `"${path}" has the beginning of hako's section but not its end`);
  }
  return text.slice(0, begin) + text.slice(end + END.length + 1);
}

/** Version of a configuration, and the handlers that it has. An empty file counts as version 2: it will be one. */
function inspect(text: string, path: string): { version: number; runtimes: string[] } {
  let root: Record<string, unknown>;
  try {
    root = parse(text);
  } catch (cause) {
    if (!(cause instanceof TomlError)) throw cause;
    const problem = cause.message.split("\n", 1)[0] ?? "";
    throw new HakoError("INVALID_ARGUMENT", `"${path}", line ${cause.line}: ${problem}`);
  }
  const version = text.trim() === "" ? 2 : Number(root.version ?? 1);
  const runtimes = table(table(table(table(root.plugins)[PLUGINS[version] ?? ""]).containerd).runtimes);
  return { version, runtimes: Object.keys(runtimes) };
}

function table(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? { ...value } : {};
}
