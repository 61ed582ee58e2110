/** Programs of the host that make the lab; some live in directories that only root has on its PATH. */
const path = `${process.env.PATH ?? ""}:/usr/sbin:/sbin:/usr/bin:/bin`;

export function findTool(name: string): string | undefined {
  return Bun.which(name, { PATH: path }) ?? undefined;
}

/** Runs a program to its end and returns its standard output; throws with both outputs unless it exits 0. */
export async function runTool(argv: readonly string[], cwd?: string): Promise<string> {
  const [name = "", ...args] = argv;
  const child = Bun.spawn([findTool(name) ?? name, ...args], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    env: { ...process.env, PATH: path, LC_ALL: "C" },
    ...(cwd === undefined ? {} : { cwd }),
  });
  const [output, errors] = await Promise.all([child.stdout.text(), child.stderr.text()]);
  if ((await child.exited) !== 0) {
    throw new Error(`"${argv.join(" ")}" failed with exit code ${child.exitCode}: ${output}${errors}`);
  }
  return output;
}

/** Makes an ext4 image of `mib` MiB (sparse) from a folder, without mounting anything and without root. */
export async function makeExt4(folder: string, image: string, mib: number): Promise<void> {
  const features = "^has_journal,^metadata_csum";
  await runTool(["mkfs.ext4", "-q", "-F", "-m", "0", "-O", features, "-d", folder, image, `${mib}M`]);
}
