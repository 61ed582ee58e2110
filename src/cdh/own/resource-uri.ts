import { HakoError } from "#base/error.ts";

/** A resource of a key broker: `kbs[+plugin]://[host]/path[?query]`. */
export interface ResourceUri {
  /** "resource" unless the URI names another. */
  readonly plugin: string;
  /** Without a slash at its beginning: repository/type/tag for the default plugin. */
  readonly path: string;
  readonly query: string;
}

const DEFAULT_PLUGIN = "resource";
const PATTERN = /^kbs(?:\+([a-z][a-z0-9-]{0,63}))?:\/\/[^/?#]{0,255}\/([^?#]{1,1024})(?:\?([^#]{0,1024}))?$/;

export function isResourceUri(text: string): boolean {
  return PATTERN.test(text);
}

/** Throws INVALID_ARGUMENT. */
export function parseResourceUri(text: string): ResourceUri {
  const found = PATTERN.exec(text);
  const path = found?.[2] ?? "";
  const plugin = found?.[1] ?? DEFAULT_PLUGIN;
  const parts = path.split("/");
  const plain = parts.every((part) => part !== "" && part !== "." && part !== "..");
  if (!found || !plain || (plugin === DEFAULT_PLUGIN && parts.length !== 3)) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Cannot use ${JSON.stringify(text.slice(0, 200))} as a resource: write kbs:///REPOSITORY/TYPE/TAG`,
    );
  }
  return { plugin, path, query: found[3] ?? "" };
}
