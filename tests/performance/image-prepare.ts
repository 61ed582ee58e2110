/**
 * From tar layers to EROFS: hako on a Debian root file system of one layer, beside mkfs.erofs on the same files
 * unpacked, and beside unpacking them first. Every run is a process of its own and ends with the image synced to
 * disk. Prints JSON: seconds of wall and CPU time, MB/s of tar, peak memory.
 */
import { mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { prepareImage } from "#image/prepare-image.ts";
import { cachedFixture, writeImage } from "../support/images.ts";
import { interleave, printResult, runCommand, summarize } from "../support/measure.ts";
import { debianImage, debianMissing } from "../support/real-images.ts";

const rounds = Number(process.argv[2] ?? 5);
const program = join(import.meta.dir, "../fixtures/prepare-image.ts");
const compressions = ["none", "gzip", "zstd"] as const;

interface Run {
  readonly wallMs: number;
  readonly cpuMs: number;
  /** Only hako tells. */
  readonly peakMib: number | undefined;
}

async function measure(command: readonly string[]): Promise<Run> {
  const started = performance.now();
  const child = Bun.spawn([...command], { stdin: "ignore", stdout: "pipe", stderr: "ignore" });
  const output = await child.stdout.text();
  if ((await child.exited) !== 0) throw new Error(`${command.join(" ")}: exit ${child.exitCode}`);
  const wallMs = performance.now() - started;
  const usage = child.resourceUsage();
  const cpuMs = Number(usage?.cpuTime.total ?? 0) / 1000;
  const peakKib: unknown = output.startsWith("{") ? JSON.parse(output).peakKib : undefined;
  return { wallMs, cpuMs, peakMib: typeof peakKib === "number" ? peakKib / 1024 : undefined };
}

/** The tree as one tar layer in three compressions. */
async function makeLayers(rootfs: string): Promise<string> {
  return await cachedFixture("debian-layers-1", async (making) => {
    const tar = join(making, "layer.tar");
    await runCommand(["tar", "-C", rootfs, "--xattrs", "--format=posix", "-cf", tar, "."]);
    for (const compression of compressions) {
      writeImage(join(making, compression), "oci", { layers: [{ tar: readFileSync(tar), compression }] });
    }
  });
}

function commands(layers: string, rootfs: string, work: string): Record<string, string[]> {
  const image = join(work, "mkfs.erofs");
  const mkfs = `mkfs.erofs --quiet ${image}`;
  const prepare = (reference: string) => [process.execPath, program, reference, join(work, "store")];
  const shell = (script: string) => ["sh", "-e", "-c", `${script}; sync ${image}`];
  return {
    ...Object.fromEntries(
      compressions.map((name) => [`hako, layer ${name}`, prepare(`oci:${join(layers, name, "image.oci")}`)]),
    ),
    "hako, directory": prepare(`rootfs:${rootfs}`),
    "mkfs.erofs, directory": shell(`${mkfs} ${rootfs}`),
    "tar -x and mkfs.erofs": shell(
      `mkdir ${work}/x; tar -C ${work}/x -xf ${layers}/layer.tar; ${mkfs} ${work}/x`,
    ),
    "bun alone": [process.execPath, "-e", "0"],
  };
}

async function runAll(layers: string, rootfs: string): Promise<Record<string, Run[]>> {
  const work = mkdtempSync(join(tmpdir(), "hako-bench-"));
  const runs: Record<string, Run[]> = {};
  try {
    for (let round = 0; round < rounds; round++) {
      for (const [name, command] of Object.entries(commands(layers, rootfs, work))) {
        for (const left of ["store", "x", "mkfs.erofs"])
          rmSync(join(work, left), { recursive: true, force: true });
        runs[name] ??= [];
        runs[name].push(await measure(command));
      }
    }
  } finally {
    rmSync(work, { recursive: true });
  }
  return runs;
}

/** A second look at the same image, in this process: documents read and verified, nothing unpacked. */
async function measureWarm(layers: string): Promise<object> {
  const directory = mkdtempSync(join(tmpdir(), "hako-bench-"));
  try {
    const reference = `oci:${join(layers, "zstd", "image.oci")}`;
    await prepareImage(reference, { directory });
    return (
      (await interleave({ "warm lookup": () => prepareImage(reference, { directory }) }, 200))[
        "warm lookup"
      ] ?? {}
    );
  } finally {
    rmSync(directory, { recursive: true });
  }
}

const missing = debianMissing("rootfs") ?? (Bun.which("mkfs.erofs") ? undefined : "needs erofs-utils");
if (missing !== undefined) {
  console.error(`SKIP image-prepare: ${missing}`);
} else {
  const rootfs = (await debianImage("rootfs")).slice("rootfs:".length);
  const layers = await makeLayers(rootfs);
  const tarBytes = statSync(join(layers, "layer.tar")).size;
  const results = Object.entries(await runAll(layers, rootfs)).map(([name, runs]) => {
    const wall = summarize(runs.map(({ wallMs }) => wallMs));
    const cpu = summarize(runs.map(({ cpuMs }) => cpuMs));
    const peaks = runs.flatMap(({ peakMib }) => peakMib ?? []);
    return {
      name,
      megabytesPerSecond: Math.round(tarBytes / 1e3 / wall.p50),
      wallMs: wall,
      cpuMs: cpu,
      ...(peaks.length > 0 && { peakMib: summarize(peaks) }),
    };
  });
  printResult("image-prepare", { tarBytes, results, warmLookupMs: await measureWarm(layers) });
}
