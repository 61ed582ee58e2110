import type { ExecRequest } from "#proto/manager.ts";
import type { SandboxState } from "#runtime/state.ts";
import type { Arguments } from "./arguments.ts";
import { attachProcess } from "./attach.ts";
import { executing, exitCodeOf } from "./exit-code.ts";
import { type Manager, ManagerConnection, RemoteProcess } from "./manager/client.ts";
import { reportError } from "./output.ts";
import { findTerminal } from "./run-foreground.ts";
import { parseEnv } from "./run-request.ts";
import { SignalRouter } from "./signals.ts";
import { StandardInput } from "./standard-input.ts";
import { StandardOutput } from "./standard-output.ts";
import { openStore } from "./store.ts";
import { followSize, type Terminal } from "./terminal.ts";

/** Runs the command of `hako exec`; resolves to its exit code. */
export async function execInContainer(input: Arguments): Promise<number> {
  using signals = new SignalRouter();
  const terminal = input.flag("tty") ? findTerminal(input.flag("interactive")) : undefined;
  const [reference = ""] = input.positionals;
  const store = await openStore();
  const state = await store.lookup(reference);
  using connection = await ManagerConnection.open(state, store.sandboxDir(state.id));
  try {
    return await execute(connection.manager, buildRequest(input, state), terminal, signals);
  } catch (error) {
    if (signals.exitCode !== undefined) return signals.exitCode;
    reportError(error);
    return exitCodeOf(error);
  }
}

type Request = Omit<ExecRequest, "_unknownFields">;

function buildRequest(input: Arguments, state: SandboxState): Request {
  return {
    containerId: state.id,
    args: input.positionals.slice(1),
    env: parseEnv(input.list("env"), process.env),
    workingDir: input.value("workdir") ?? "",
    user: input.value("user") ?? "",
    terminal: input.flag("tty"),
    stdin: input.flag("interactive"),
    detached: input.flag("detach"),
  };
}

async function execute(
  manager: Manager,
  request: Request,
  terminal: Terminal | undefined,
  signals: SignalRouter,
): Promise<number> {
  const { processId } = await executing(manager.exec(request, { signal: signals.aborted }));
  if (request.detached) return 0;
  const remote = new RemoteProcess(manager, processId, request.terminal);
  signals.forwardTo((signalNumber) => remote.kill(signalNumber));
  using stack = new DisposableStack();
  if (terminal) {
    const size = terminal.size();
    if (size) await remote.resize(size.columns, size.rows);
    stack.use(followSize(terminal, remote));
    if (request.stdin) stack.use(terminal.makeRaw());
  }
  const attachment = {
    ...(request.stdin ? { stdin: stack.use(new StandardInput(0)) } : {}),
    stdout: stack.use(new StandardOutput(1)),
    stderr: stack.use(new StandardOutput(2)),
  };
  return await attachProcess(remote, remote.wait(), attachment);
}
