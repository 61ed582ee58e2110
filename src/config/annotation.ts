import { HakoError } from "#base/error.ts";
import type { Config, HypervisorName } from "./config.ts";

const PREFIX = "io.katacontainers.config.";

/**
 * The settings with what a pod's annotations `io.katacontainers.config.*` change. Those of the hypervisor go to the
 * table of `hypervisorName` (not `auto`), each only if one of its `enable_annotations` matches the whole name.
 *
 * Throws PERMISSION_DENIED for an annotation that is not allowed and for a path that no `valid_*` pattern matches,
 * INVALID_ARGUMENT for an unknown one, a bad value or a bad pattern. The schema is only loaded when there is one.
 */
export async function applyAnnotations(
  config: Config,
  annotations: Readonly<Record<string, string>>,
  hypervisorName: HypervisorName,
): Promise<Config> {
  const found = Object.entries(annotations).filter(([name]) => name.startsWith(PREFIX));
  if (found.length === 0) return config;
  const { readAnnotation } = await import("./annotation-value.ts");
  let result: Config = config;
  for (const [name, value] of found) {
    const suffix = name.slice(PREFIX.length);
    if (suffix.startsWith("hypervisor.")) checkEnabled(config, hypervisorName, name);
    const change = readAnnotation(suffix, value, { name, hypervisorName, config });
    if (change) result = withMember(result, change.key, change.value) as Config;
  }
  return result;
}

/** The name of the hypervisor that the annotations ask for, if they do. */
export function annotatedHypervisor(annotations: Readonly<Record<string, string>>): string | undefined {
  return annotations[`${PREFIX}runtime.hypervisor_name`];
}

function checkEnabled(config: Config, hypervisorName: HypervisorName, name: string): void {
  const suffix = name.slice(`${PREFIX}hypervisor.`.length);
  const { enableAnnotations } = config.hypervisor[hypervisorName];
  if (enableAnnotations.some((pattern) => matchesWhole(pattern, suffix, hypervisorName))) return;
  throw new HakoError(
    "PERMISSION_DENIED",
    `Annotation "${name}" is not allowed: no entry of "enable_annotations" in [hypervisor.${hypervisorName}] matches "${suffix}"`,
  );
}

/** Anchored: `enable_iommu` does not let `enable_iommu_platform` in. */
function matchesWhole(pattern: string, suffix: string, hypervisorName: string): boolean {
  try {
    return new RegExp(`^(?:${pattern})$`).test(suffix);
  } catch (cause) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `"enable_annotations" in [hypervisor.${hypervisorName}] has "${pattern}", which is no regular expression`,
      { cause },
    );
  }
}

function withMember(value: unknown, key: readonly string[], member: unknown): unknown {
  const [first, ...rest] = key;
  if (first === undefined) return member;
  const table = value as Record<string, unknown>;
  return { ...table, [first]: withMember(table[first], rest, member) };
}
