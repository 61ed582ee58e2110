import { HakoError } from "#base/error.ts";

/** Where an image is, as written on the command line. Paths are as given. */
export type ImageReference =
  | { readonly type: "oci" | "oci-archive" | "docker-archive"; readonly path: string; readonly tag?: string }
  | { readonly type: "rootfs"; readonly path: string };

const forms = [
  "oci:DIRECTORY[:TAG]",
  "oci-archive:FILE[:TAG]",
  "docker-archive:FILE[:TAG]",
  "rootfs:DIRECTORY",
] as const;

/**
 * Reads `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]`, `docker-archive:FILE[:TAG]` or `rootfs:DIR`. The path ends at
 * the first colon, except for `rootfs`, which takes no tag. Throws INVALID_ARGUMENT for anything else.
 */
export function parseReference(text: string): ImageReference {
  const colon = text.indexOf(":");
  const type = text.slice(0, Math.max(colon, 0));
  const rest = text.slice(colon + 1);
  if (rest.includes("\0")) throw invalid(text, "it has a NUL inside");
  switch (type) {
    case "rootfs":
      if (rest === "") throw invalid(text, "the directory is missing");
      return { type, path: rest };
    case "oci":
    case "oci-archive":
    case "docker-archive":
      return { type, ...splitTag(text, rest) };
    default:
      throw unknownForm(text);
  }
}

function splitTag(text: string, rest: string): { path: string; tag?: string } {
  const colon = rest.indexOf(":");
  if (colon < 0 && rest !== "") return { path: rest };
  const path = rest.slice(0, Math.max(colon, 0));
  const tag = rest.slice(colon + 1);
  if (path === "") throw invalid(text, "the path is missing");
  if (tag === "") throw invalid(text, "the tag behind the colon is missing");
  return { path, tag };
}

function invalid(text: string, reason: string): HakoError {
  return new HakoError("INVALID_ARGUMENT", `Cannot read image reference ${JSON.stringify(text)}: ${reason}`);
}

/** What a name without a known type most likely means: an image of a registry. */
function unknownForm(text: string): HakoError {
  return invalid(
    text,
    `use one of ${forms.join(", ")}; images are not pulled from registries, ` +
      `copy one first, for example with "skopeo copy docker://NAME oci:DIRECTORY:TAG"`,
  );
}

/** The reference as it is written. */
export function formatReference(reference: ImageReference): string {
  const tag = reference.type !== "rootfs" && reference.tag !== undefined ? `:${reference.tag}` : "";
  return `${reference.type}:${reference.path}${tag}`;
}
