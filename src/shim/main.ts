import { writeSync } from "node:fs";
import { basename } from "node:path";
import { HakoError } from "#base/error.ts";
import { version } from "#base/version.ts";
import { parseFlags, type ShimFlags, USAGE } from "./flags.ts";

const STDOUT = 1;
const STDERR = 2;

/** The role of a containerd shim. Each of its words loads nothing but its own code. */
export async function run(words: string[]): Promise<number> {
  try {
    const flags = parseFlags(words);
    if (flags.print) return await print(flags.print);
    return await act(flags);
  } catch (caught) {
    // containerd shows what a shim says on its standard error.
    writeSync(STDERR, `hako shim: ${HakoError.from(caught).fullMessage}\n`);
    return 1;
  }
}

async function act(flags: ShimFlags): Promise<number> {
  switch (flags.action) {
    case "start": {
      const { start } = await import("./start.ts");
      writeAll(Buffer.from(await start(flags)));
      return 0;
    }
    case "delete": {
      const { deleteShim } = await import("./delete.ts");
      writeAll(await deleteShim(flags));
      return 0;
    }
    case "": {
      const { serve } = await import("./serve.ts");
      return await serve(flags);
    }
  }
}

async function print(what: "help" | "info" | "version"): Promise<number> {
  if (what === "help") writeAll(Buffer.from(USAGE));
  if (what === "version") writeAll(Buffer.from(`${basename(process.argv0)}:\n  Version: ${version}\n`));
  if (what === "info") {
    const { runtimeInfo, runtimeName } = await import("./info.ts");
    writeAll(runtimeInfo(runtimeName(basename(process.argv0))));
  }
  return 0;
}

function writeAll(bytes: Uint8Array): void {
  for (let offset = 0; offset < bytes.length; ) offset += writeSync(STDOUT, bytes, offset);
}
