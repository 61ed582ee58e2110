import { HakoError } from "#base/error.ts";
import type { ReadStreamRequest } from "#proto/agent.ts";
import type { AgentMethods, AgentRuntime } from "./agent-service.ts";

/** Standard streams and terminals. The end of an output is an empty answer, as Kata's clients expect it. */
export function stdioMethods({ sandbox }: AgentRuntime): AgentMethods {
  const lookup = ({ containerId, execId }: { containerId: string; execId: string }) =>
    sandbox.lookupContainer(containerId).lookupProcess(execId);
  const read = async (request: ReadStreamRequest, stream: "stdout" | "stderr", signal: AbortSignal) => {
    // An empty answer would say that the output has ended.
    if (request.len === 0) throw new HakoError("INVALID_ARGUMENT", "Cannot read 0 bytes of output");
    return { data: await lookup(request).read(stream, request.len, signal) };
  };
  return {
    async writeStdin(request, { signal }) {
      const process = lookup(request);
      // Kata's runtime ends the input by an empty write.
      if (request.data.length === 0) await process.closeStdin(signal);
      else await process.writeStdin(request.data, signal);
      return { len: request.data.length };
    },
    readStdout: (request, { signal }) => read(request, "stdout", signal),
    readStderr: (request, { signal }) => read(request, "stderr", signal),
    async closeStdin(request, { signal }) {
      await lookup(request).closeStdin(signal);
      return {};
    },
    async ttyWinResize(request) {
      lookup(request).resize(request.row, request.column);
      return {};
    },
  };
}
