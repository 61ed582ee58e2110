import { HakoError } from "#base/error.ts";
import { Timeline } from "#runtime/timeline.ts";
import { attachProcess } from "./attach.ts";
import { executing, exitCodeOf } from "./exit-code.ts";
import { ContainerRemoved, SandboxHost } from "./manager/host.ts";
import { reportError } from "./output.ts";
import type { RunRequest } from "./run-request.ts";
import { SignalRouter } from "./signals.ts";
import { StandardInput } from "./standard-input.ts";
import { StandardOutput } from "./standard-output.ts";
import { followSize, Terminal } from "./terminal.ts";
import { printTimeline } from "./timing.ts";

export interface ForegroundOptions {
  /** `json`, empty for a table, absent for neither. */
  readonly timing: string | undefined;
}

/** Runs a container with our own streams; resolves to its exit code, or to 128+n when signal n ended the start. */
export async function runForeground(request: RunRequest, options: ForegroundOptions): Promise<number> {
  const timeline = new Timeline();
  timeline.mark("hako start");
  using signals = new SignalRouter();
  const terminal = request.container.process.terminal ? findTerminal(request.container.stdin) : undefined;
  try {
    const exitCode = await runToEnd(request, timeline, signals, terminal);
    timeline.mark("torn down");
    if (options.timing !== undefined) printTimeline(timeline, options.timing);
    return exitCode;
  } catch (error) {
    if (signals.exitCode !== undefined) return signals.exitCode;
    if (error instanceof ContainerRemoved) return error.exitCode;
    reportError(error);
    return exitCodeOf(error);
  }
}

async function runToEnd(
  request: RunRequest,
  timeline: Timeline,
  signals: SignalRouter,
  terminal: Terminal | undefined,
): Promise<number> {
  await using host = await SandboxHost.create(request, timeline, signals.aborted);
  // Dropped before the host is torn down, so that a second signal does not reach a process that is gone.
  using _ = { [Symbol.dispose]: () => signals.ignore() };
  const { container } = host;
  const size = terminal?.size();
  if (size) await container.process.resize(size.columns, size.rows, signals.aborted);
  await timeline.measure("container started", executing(container.start(signals.aborted)));
  signals.forwardTo((signalNumber) => container.kill(signalNumber));

  using stack = new DisposableStack();
  if (terminal) stack.use(followSize(terminal, container.process));
  if (terminal && request.container.stdin) stack.use(terminal.makeRaw());
  const attachment = {
    ...(request.container.stdin ? { stdin: stack.use(new StandardInput(0)) } : {}),
    stdout: stack.use(new StandardOutput(1)),
    stderr: stack.use(new StandardOutput(2)),
    onFirstByte: () => timeline.mark("first byte"),
  };
  const exitCode = await attachProcess(container.process, host.wait(), attachment);
  timeline.mark("exit");
  return exitCode;
}

/** The terminal whose size the container's gets: that of the input if keys come from it, else that of the output. */
export function findTerminal(interactive: boolean): Terminal | undefined {
  if (!interactive) return Terminal.find(1);
  const terminal = Terminal.find(0);
  if (terminal) return terminal;
  throw new HakoError("FAILED_PRECONDITION", "Standard input is not a terminal: leave out -t, or -i");
}
