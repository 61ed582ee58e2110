import { formatAddress } from "#agent-client/address.ts";
import { serveManagement } from "#monitor/management.ts";
import type { ShimContext, ShimService } from "#shim/service.ts";
import type { MetricFamily } from "#telemetry/metrics-text.ts";

/** The management socket of the sandbox, there as long as it runs. */
export class MonitorService implements ShimService {
  readonly name = "monitor";
  readonly calls = [];
  readonly #context: ShimContext;
  #serving: Disposable | undefined;

  constructor(context: ShimContext) {
    this.#context = context;
  }

  async start(): Promise<void> {
    const { pod } = this.#context;
    const sandbox = pod.lookupSandbox();
    const { agent, address } = sandbox.lookupAgent();
    this.#serving = serveManagement(
      {
        agentUrl: formatAddress(address),
        agent,
        monitorPid: () => pod.monitorPid(),
        metrics: () => shimMetrics(this.#context),
      },
      sandbox.dir,
    );
  }

  async stop(): Promise<void> {
    this.#serving?.[Symbol.dispose]();
  }
}

function shimMetrics({ pod, lag }: ShimContext): MetricFamily[] {
  const { last, max, sum, count } = lag.seconds;
  const { events } = pod.options;
  const one = (value: number) => [{ labels: {}, value }];
  return [
    {
      name: "hako_shim_event_loop_lag_seconds",
      help: "How late the event loop was: when it was last looked at, and at its worst",
      type: "gauge",
      samples: [
        { labels: { when: "last" }, value: last },
        { labels: { when: "max" }, value: max },
      ],
    },
    { name: "hako_shim_event_loop_lag_seconds_sum", help: "All of it", type: "counter", samples: one(sum) },
    {
      name: "hako_shim_event_loop_lag_seconds_count",
      help: "Looks taken",
      type: "counter",
      samples: one(count),
    },
    { name: "hako_shim_tasks", help: "Containers", type: "gauge", samples: one(pod.tasks.size) },
    {
      name: "hako_shim_events_waiting",
      help: "Events not sent yet",
      type: "gauge",
      samples: one(events.waiting),
    },
    {
      name: "hako_shim_events_dropped",
      help: "Events given up",
      type: "counter",
      samples: one(events.dropped),
    },
  ];
}
