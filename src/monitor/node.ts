import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { HakoError } from "#base/error.ts";
import { formatMetrics, type MetricFamily } from "#telemetry/metrics-text.ts";
import { answering } from "./http-error.ts";
import { MANAGEMENT_SOCKET } from "./management.ts";
import { MetricsMerger } from "./metrics-filter.ts";

const SCRAPE_TIMEOUT_MS = 5000;
/** Sandboxes asked at a time. */
const PARALLEL = 16;
/** Of one sandbox's text. */
const MAX_TEXT_BYTES = 4 * 1024 * 1024;

export interface NodeMonitorOptions {
  readonly hostname: string;
  /** 0: any free one. */
  readonly port: number;
  /** The directory that has a directory for each sandbox. */
  readonly sandboxesDir: string;
}

export interface NodeMonitor extends AsyncDisposable {
  readonly url: URL;
}

/** Serves the metrics of all sandboxes of a node that have a management socket. */
export function serveNodeMonitor({ hostname, port, sandboxesDir }: NodeMonitorOptions): NodeMonitor {
  const node = new Node(sandboxesDir);
  const server = Bun.serve({
    hostname,
    port,
    routes: {
      "/": { GET: () => new Response("/metrics\n/metrics?sandbox=ID\n/sandboxes\n/agent-url?sandbox=ID\n") },
      "/metrics": {
        GET: answering(async (request: Request) => {
          const id = sandboxOf(request);
          const text = id === undefined ? await node.metrics() : await node.ask(id, "/metrics");
          return new Response(text, { headers: { "content-type": "text/plain; version=0.0.4" } });
        }),
      },
      "/sandboxes": {
        GET: answering(async () => new Response((await node.sandboxes()).map((id) => `${id}\n`).join(""))),
      },
      "/agent-url": {
        GET: answering(async (request: Request) => {
          const id = sandboxOf(request);
          if (id === undefined)
            throw new HakoError("INVALID_ARGUMENT", "Give a sandbox: /agent-url?sandbox=ID");
          return new Response(await node.ask(id, "/agent-url"));
        }),
      },
    },
    fetch: () => new Response("There is no such path\n", { status: 404 }),
  });
  return { url: server.url, [Symbol.asyncDispose]: () => server.stop(true) };
}

function sandboxOf(request: Request): string | undefined {
  return new URL(request.url).searchParams.get("sandbox") ?? undefined;
}

class Node {
  readonly #dir: string;
  #scrapes = 0;
  #failures = 0;

  constructor(dir: string) {
    this.#dir = dir;
  }

  async sandboxes(): Promise<string[]> {
    const ids = await readdir(this.#dir).catch(() => []);
    const found = await Promise.all(
      ids.map(async (id) =>
        (await readdir(join(this.#dir, id)).catch((): string[] => [])).includes(MANAGEMENT_SOCKET)
          ? [id]
          : [],
      ),
    );
    return found.flat().sort();
  }

  /** What one sandbox answers. NOT_FOUND for an unknown one, UNAVAILABLE when it does not answer. */
  async ask(id: string, path: string): Promise<string> {
    if (!(await this.sandboxes()).includes(id)) {
      throw new HakoError("NOT_FOUND", `There is no sandbox ${JSON.stringify(id.slice(0, 160))}`);
    }
    try {
      const unix = join(this.#dir, id, MANAGEMENT_SOCKET);
      const response = await fetch(`http://sandbox${path}`, {
        unix,
        signal: AbortSignal.timeout(SCRAPE_TIMEOUT_MS),
      });
      const text = await response.text();
      if (response.ok && text.length <= MAX_TEXT_BYTES) return text;
      throw new HakoError("UNAVAILABLE", `The answer has status ${response.status} and ${text.length} bytes`);
    } catch (cause) {
      throw new HakoError("UNAVAILABLE", `Cannot ask sandbox "${id}"`, { cause });
    }
  }

  async metrics(): Promise<string> {
    const started = performance.now();
    const ids = await this.sandboxes();
    const merger = new MetricsMerger();
    const waiting = [...ids];
    const work = async () => {
      for (let id = waiting.shift(); id !== undefined; id = waiting.shift()) {
        try {
          merger.add(await this.ask(id, "/metrics"), { sandbox_id: id });
        } catch {
          this.#failures++;
        }
      }
    };
    await Promise.all(Array.from({ length: PARALLEL }, work));
    this.#scrapes++;
    merger.add(formatMetrics(this.#own(ids.length, (performance.now() - started) / 1000)), {});
    return merger.format();
  }

  #own(running: number, seconds: number): MetricFamily[] {
    const one = (value: number) => [{ labels: {}, value }];
    return [
      {
        name: "kata_monitor_running_shim_count",
        help: "Running sandboxes",
        type: "gauge",
        samples: one(running),
      },
      {
        name: "kata_monitor_scrape_count",
        help: "Scrapes so far",
        type: "counter",
        samples: one(this.#scrapes),
      },
      {
        name: "kata_monitor_scrape_failed_count",
        help: "Sandboxes that did not answer a scrape",
        type: "counter",
        samples: one(this.#failures),
      },
      {
        name: "hako_monitor_scrape_seconds",
        help: "Time that the last scrape took",
        type: "gauge",
        samples: one(seconds),
      },
    ];
  }
}
