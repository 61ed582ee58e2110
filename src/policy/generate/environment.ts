import { HakoError } from "#base/error.ts";
import type { Manifest, ManifestNode } from "./manifest.ts";

/** What a container's environment may be. */
export interface EnvironmentPolicy {
  /** `NAME=value`, later ones over earlier ones. */
  readonly entries: string[];
  /** For values that only the cluster knows. */
  readonly patterns: string[];
}

const ADDRESS = "[0-9a-fA-F:.]{2,45}";
const DNS_NAME = "[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?";

/** Patterns of values of the downward API. */
const fieldPatterns: Readonly<Record<string, string>> = {
  "metadata.name": DNS_NAME,
  "metadata.namespace": DNS_NAME,
  "metadata.uid": "[0-9a-f-]{36}",
  "spec.nodeName": DNS_NAME,
  "spec.serviceAccountName": DNS_NAME,
  "status.hostIP": ADDRESS,
  "status.podIP": ADDRESS,
  "status.podIPs": `${ADDRESS}(,${ADDRESS})*`,
};

/** Reads `env` and `envFrom` of a container, over what its image sets. Throws INVALID_ARGUMENT, NOT_FOUND. */
export function readEnvironment(
  container: ManifestNode,
  imageEnv: readonly string[],
  values: Manifest["values"],
): EnvironmentPolicy {
  const entries = new Map(imageEnv.map((entry) => [nameOf(entry), entry]));
  const patterns: string[] = [];
  for (const source of container.at("envFrom").items()) {
    const prefix = source.at("prefix").find() ?? "";
    for (const [key, value] of Object.entries(findValues(source, values)))
      entries.set(prefix + key, `${prefix}${key}=${value}`);
  }
  for (const variable of container.at("env").items()) {
    const name = variable.at("name").text();
    const from = variable.at("valueFrom");
    entries.delete(name);
    if (!from.exists) entries.set(name, `${name}=${expand(variable.at("value").find() ?? "", entries)}`);
    else if (from.at("fieldRef").exists || from.at("resourceFieldRef").exists)
      patterns.push(patternOf(name, from));
    else entries.set(name, `${name}=${lookupValue(from, values)}`);
  }
  return { entries: [...entries.values()], patterns };
}

/** `$(NAME)` in values and arguments is the variable's value, `$$` a dollar; what is not known stays as it is. */
export function expand(text: string, entries: ReadonlyMap<string, string>): string {
  return text.replace(/\$\$|\$\(([A-Za-z_.][\w.-]*)\)/g, (all, name?: string) => {
    if (all === "$$") return "$";
    const entry = entries.get(name ?? "");
    return entry === undefined ? all : entry.slice(entry.indexOf("=") + 1);
  });
}

export function nameOf(entry: string): string {
  return entry.split("=", 1)[0] ?? "";
}

function patternOf(name: string, from: ManifestNode): string {
  const path = from.at("fieldRef").at("fieldPath").find();
  const pattern =
    path === undefined ? "[0-9]+" : Object.hasOwn(fieldPatterns, path) ? fieldPatterns[path] : undefined;
  if (pattern !== undefined) return `^${name.replaceAll(".", "\\.")}=${pattern}$`;
  throw new HakoError(
    "UNIMPLEMENTED",
    `Cannot tell the value of variable "${name}": field "${path}" is not known`,
  );
}

/** The object that `configMapRef` or `secretRef` names. */
function findValues(source: ManifestNode, values: Manifest["values"]): Readonly<Record<string, string>> {
  const [kind, reference] = source.at("configMapRef").exists
    ? ["ConfigMap", source.at("configMapRef")]
    : ["Secret", source.at("secretRef")];
  return (
    lookupObject(
      `${kind}/${(reference as ManifestNode).at("name").text()}`,
      reference as ManifestNode,
      values,
    ) ?? {}
  );
}

function lookupValue(from: ManifestNode, values: Manifest["values"]): string {
  const [kind, reference] = from.at("configMapKeyRef").exists
    ? (["ConfigMap", from.at("configMapKeyRef")] as const)
    : (["Secret", from.at("secretKeyRef")] as const);
  const key = reference.at("key").text();
  const object = lookupObject(`${kind}/${reference.at("name").text()}`, reference, values);
  const value = object?.[key];
  if (value !== undefined) return value;
  throw new HakoError("NOT_FOUND", `Cannot tell a value: "${reference.path}" names a key that is not there`);
}

function lookupObject(name: string, reference: ManifestNode, values: Manifest["values"]) {
  const object = values.get(name);
  if (object || reference.at("optional").flag() === true) return object;
  throw new HakoError(
    "NOT_FOUND",
    `Cannot tell values of "${reference.path}": put ${name} into the same file`,
  );
}
