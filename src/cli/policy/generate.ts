import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { HakoError } from "#base/error.ts";
import type { Arguments } from "#cli/arguments.ts";
import { print } from "#cli/output.ts";
import { findPaths } from "#config/paths.ts";
import { prepareImage } from "#image/prepare-image.ts";
import type { ImageConfig } from "#oci/image-spec.ts";
import { generateFromImage, generateFromManifest } from "#policy/generate/generate.ts";

const MANIFEST = /\.(ya?ml|json)$/;
const MANIFEST_MAX = 4 * 1024 * 1024;

/** Prints a policy for a manifest (a file that ends in .yaml) or for an image. */
export async function generatePolicy(input: Arguments): Promise<number> {
  const [, source = "", ...command] = input.positionals;
  const runDirectory = input.value("run-dir");
  const common = {
    allowOutput: input.flag("allow-output"),
    allowExec: input.flag("allow-exec"),
    ...(runDirectory === undefined ? {} : { runDirectory }),
  };
  if (MANIFEST.test(source)) print(await fromManifest(input, source, command, common));
  else {
    const config = await readImage(source);
    const volumes = input.list("volume").map(parseVolume);
    print(
      generateFromImage(config, {
        ...common,
        command,
        volumes,
        env: input.list("env"),
        terminal: input.flag("tty"),
        stdin: input.flag("interactive"),
      }),
    );
  }
  return 0;
}

async function fromManifest(
  input: Arguments,
  path: string,
  rest: readonly string[],
  common: { readonly allowOutput: boolean; readonly allowExec: boolean },
): Promise<string> {
  if (rest.length > 0)
    throw new HakoError("INVALID_ARGUMENT", `Unexpected word "${rest[0]}": a manifest has its own commands`);
  const images = new Map<string, ImageConfig>();
  for (const entry of input.list("image")) {
    const equals = entry.indexOf("=");
    if (equals < 1) throw new HakoError("INVALID_ARGUMENT", `--image "${entry}": write NAME=REFERENCE`);
    images.set(entry.slice(0, equals), await readImage(entry.slice(equals + 1)));
  }
  const pod = input.value("pod");
  const options = { ...common, ...(pod === undefined ? {} : { pod }) };
  return generateFromManifest(readManifest(path), (image) => images.get(image), options);
}

function readManifest(path: string): string {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (cause) {
    throw new HakoError("INVALID_ARGUMENT", `Cannot read manifest "${path}"`, { cause });
  }
  if (text.length <= MANIFEST_MAX) return text;
  throw new HakoError("INVALID_ARGUMENT", `Manifest "${path}" has more than ${MANIFEST_MAX} characters`);
}

async function readImage(reference: string): Promise<ImageConfig> {
  const { config } = await prepareImage(reference, { directory: join(findPaths().stateDir, "image") });
  return config;
}

function parseVolume(text: string): { guestPath: string; readOnly: boolean } {
  const [guestPath = "", mode = "rw"] = text.split(":");
  if (guestPath.startsWith("/") && (mode === "ro" || mode === "rw")) {
    return { guestPath: resolve(guestPath), readOnly: mode === "ro" };
  }
  throw new HakoError("INVALID_ARGUMENT", `--volume "${text}": write GUEST or GUEST:ro, an absolute path`);
}
