import { HakoError } from "#base/error.ts";
import type { Arguments } from "./arguments.ts";
import type { Command } from "./command.ts";
import { JSON_OPTION } from "./command.ts";

const BENCHMARKS = ["startup", "density", "io"] as const;
export type Benchmark = (typeof BENCHMARKS)[number];

const DEFAULT_COUNT: Readonly<Record<Benchmark, number>> = { startup: 20, density: 5, io: 3 };
const MAX_COUNT = 100_000;
const MAX_CONCURRENCY = 1000;

/** What a benchmark shall do; checked. */
export interface BenchRequest {
  readonly benchmark: Benchmark;
  readonly runtimes: readonly string[];
  readonly count: number;
  readonly concurrency: number;
  readonly sizeMib: number;
  /** Absent: the image that hako makes itself. */
  readonly image?: string;
  readonly command: readonly string[];
  readonly idleCommand: readonly string[];
  readonly work: readonly string[];
  readonly json: boolean;
  readonly csvFile?: string;
  readonly htmlFile?: string;
}

export const command: Command = {
  name: "bench",
  usage: "startup|density|io [OPTIONS] [-- COMMAND [ARG...]]",
  summary: "Measure sandboxes beside other runtimes on this host.",
  details: `startup  whole starts, from the program's start to its end: percentiles, phases, starts a second
density  memory of idle containers: PSS of every process of theirs, and by how much the host's free memory falls
io       throughput inside of a container (the image needs sh and dd)

RUNTIME is auto, builtin or qemu (hako itself), runc, crun, or ctr:NAME for a runtime of the containerd on this host,
such as ctr:io.containerd.runc.v2. Runtimes take turns, so that a drift of the machine hits all alike. Without --image a
root file system with nothing but a program that exits at once is used; runc, crun and ctr start directories alone, so they
need that one or rootfs:DIR. COMMAND is what is started; it must end by itself with 0.`,
  options: [
    {
      name: "runtime",
      kind: "list",
      placeholder: "RUNTIME[,RUNTIME...]",
      help: "What to measure (default: auto, and runc where it is installed)",
    },
    {
      name: "count",
      short: "n",
      kind: "value",
      placeholder: "N",
      help: "Starts, containers or rounds of each",
    },
    {
      name: "concurrency",
      short: "c",
      kind: "value",
      placeholder: "N",
      help: "Starts at the same time (default: 1)",
    },
    { name: "image", kind: "value", placeholder: "IMAGE", help: "Image to start, as for hako run" },
    {
      name: "idle",
      kind: "value",
      placeholder: "COMMAND",
      help: "What idle containers run (default: sleep 1000000)",
    },
    {
      name: "work",
      kind: "value",
      placeholder: "COMMAND",
      help: "density: run by sh in each, then read memory again",
    },
    { name: "size", kind: "value", placeholder: "SIZE", help: "io: size of the file (default: 64m)" },
    { name: "csv", kind: "value", placeholder: "FILE", help: "Write the figures as CSV" },
    { name: "html", kind: "value", placeholder: "FILE", help: "Write a page with plots" },
    JSON_OPTION,
  ],
  positionals: { min: 1, max: Number.POSITIVE_INFINITY },
  async run(input) {
    const { parseSize } = await import("#base/size.ts");
    const request = parseBenchRequest(input, parseSize);
    const { runBenchmark } = await import("./bench/run-benchmark.ts");
    return runBenchmark(request, `hako bench ${process.argv.slice(3).join(" ")}`);
  },
};

/** Throws INVALID_ARGUMENT naming the option at fault. */
export function parseBenchRequest(input: Arguments, parseSize: (text: string) => number): BenchRequest {
  const [word = "", ...words] = input.positionals;
  const benchmark = BENCHMARKS.find((name) => name === word);
  if (!benchmark) throw invalid(`There is no benchmark "${word}": choose ${BENCHMARKS.join(", ")}`);
  const image = input.value("image");
  if (image === undefined && words.length > 0)
    throw invalid("A command needs --image: hako's own has no other");
  if (benchmark === "io" && image === undefined) throw invalid("io needs --image: an image with sh and dd");
  const work = input.value("work");
  if (work !== undefined && image === undefined) throw invalid("--work needs --image: an image with sh");
  const csvFile = input.value("csv");
  const htmlFile = input.value("html");
  const command = words.length > 0 ? words : [image === undefined ? "/true" : "true"];
  const idle = input
    .value("idle")
    ?.split(" ")
    .filter((part) => part !== "");
  return {
    benchmark,
    runtimes: [...new Set(input.list("runtime").flatMap((list) => list.split(",")))],
    count: parseCount("--count", input.value("count"), MAX_COUNT) ?? DEFAULT_COUNT[benchmark],
    concurrency: parseCount("--concurrency", input.value("concurrency"), MAX_CONCURRENCY) ?? 1,
    sizeMib: Math.max(1, Math.round(parseSize(input.value("size") ?? "64m") / 2 ** 20)),
    ...(image === undefined ? {} : { image }),
    command,
    idleCommand: idle ?? (image === undefined ? ["/pause"] : ["sleep", "1000000"]),
    work: work === undefined ? [] : ["sh", "-c", work],
    json: input.flag("json"),
    ...(csvFile === undefined ? {} : { csvFile }),
    ...(htmlFile === undefined ? {} : { htmlFile }),
  };
}

function parseCount(option: string, text: string | undefined, max: number): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (Number.isInteger(value) && value >= 1 && value <= max) return value;
  throw invalid(`${option} "${text}" is not a number from 1 to ${max}`);
}

function invalid(message: string): HakoError {
  return new HakoError("INVALID_ARGUMENT", message);
}
