import { constants } from "node:fs";
import { access, stat } from "node:fs/promises";
import { delimiter, isAbsolute, join } from "node:path";
import { HakoError } from "#base/error.ts";

const NAME = "qemu-system-x86_64";
/** Where distributions put it when it is not in PATH; Red Hat's is called after KVM. */
const otherPlaces = [`/usr/bin/${NAME}`, `/usr/local/bin/${NAME}`, "/usr/libexec/qemu-kvm"];
const VERSION_TIMEOUT_MS = 5000;

/** An absolute path of QEMU's system emulator. NOT_FOUND with a hint, PERMISSION_DENIED when it is not executable. */
export async function findBinary(given?: string): Promise<string> {
  if (given !== undefined) return checkGiven(given);
  const directories = (process.env.PATH ?? "").split(delimiter).filter(isAbsolute);
  for (const path of [...directories.map((directory) => join(directory, NAME)), ...otherPlaces]) {
    if (await isExecutable(path)) return path;
  }
  throw new HakoError(
    "NOT_FOUND",
    `Cannot find QEMU: no "${NAME}" in PATH (Debian has it in the package qemu-system-x86)`,
  );
}

async function checkGiven(path: string): Promise<string> {
  if (!isAbsolute(path))
    throw new HakoError("INVALID_ARGUMENT", `Cannot use "${path}" as QEMU: the path must be absolute`);
  if (await isExecutable(path)) return path;
  const code = (await exists(path)) ? "PERMISSION_DENIED" : "NOT_FOUND";
  throw new HakoError(code, `Cannot use "${path}" as QEMU: it is no executable file`);
}

async function isExecutable(path: string): Promise<boolean> {
  try {
    await access(path, constants.X_OK);
    return (await stat(path)).isFile();
  } catch {
    return false;
  }
}

function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}

/** What `--version` says, its first line. */
export async function readVersion(binary: string): Promise<string> {
  const child = Bun.spawn([binary, "--version"], {
    env: {},
    stdio: ["ignore", "pipe", "ignore"],
    timeout: VERSION_TIMEOUT_MS,
  });
  const text = await child.stdout.text();
  const line = text.split("\n")[0]?.trim() ?? "";
  if ((await child.exited) === 0 && line !== "") return line;
  throw new HakoError(
    "UNAVAILABLE",
    `Cannot read the version of "${binary}": it ended with ${child.exitCode}`,
  );
}
