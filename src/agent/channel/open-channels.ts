import type { AgentOptions } from "#agent/options.ts";
import { logger } from "#telemetry/log.ts";
import type { PassedConnections } from "./passed-streams.ts";
import { connectHost, SideChannel } from "./side-channel.ts";
import type { SpanExporter } from "./span-exporter.ts";

const log = logger("channel");

/** What the options ask for beside the agent's own channel. */
export interface Channels extends AsyncDisposable {
  readonly passed: PassedConnections | undefined;
  readonly spans: SpanExporter | undefined;
  /** Takes the log's lines; undefined without a log channel. */
  readonly log: { write(line: string): void; readonly connected: boolean } | undefined;
}

/** Opens a channel; one that cannot be had is noted, because the agent is of use without it. */
async function attempt<T>(what: string, open: () => Promise<T>): Promise<T | undefined> {
  try {
    return await open();
  } catch (error) {
    log.warn(`cannot open ${what}`, { error });
    return undefined;
  }
}

/** Opens log channel, debug console, passed streams and traces as far as the options ask for them. */
export async function openChannels(options: AgentOptions): Promise<Channels> {
  const { server } = options;
  const stack = new AsyncDisposableStack();
  const logChannel =
    options.logPort === 0
      ? undefined
      : await attempt("the log channel", async () => {
          const { LogChannel } = await import("./log-channel.ts");
          return stack.use(new LogChannel(SideChannel.open(server, options.logPort)));
        });
  if (options.debugConsole) {
    await attempt("the debug console", async () => {
      const { keepConsoleShell, serveDebugConsole } = await import("./debug-console.ts");
      const port = options.debugConsolePort;
      stack.use(port === 0 ? keepConsoleShell() : serveDebugConsole(SideChannel.open(server, port)));
    });
  }
  const passed =
    options.passfdPort === 0
      ? undefined
      : await attempt("the port for standard streams", async () => {
          const streams = await import("./passed-streams.ts");
          return stack.use(new streams.PassedConnections(SideChannel.open(server, options.passfdPort)));
        });
  const spans = options.tracing
    ? await attempt("traces", async () => {
        const { SpanExporter, TRACE_PORT } = await import("./span-exporter.ts");
        return stack.use(new SpanExporter((signal) => connectHost(server, TRACE_PORT, signal)));
      })
    : undefined;
  return { passed, spans, log: logChannel, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}
