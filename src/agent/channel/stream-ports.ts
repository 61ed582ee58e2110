import { HakoError } from "#base/error.ts";
import type { PassedConnections, PassedStreams, StreamPorts } from "./passed-streams.ts";

/**
 * The connections that a request names by their ports, undefined when it names none. Throws FAILED_PRECONDITION when
 * this agent takes none, NOT_FOUND for a port from which nothing came.
 */
export function takeStreams(
  passed: PassedConnections | undefined,
  ports: StreamPorts,
): PassedStreams | undefined {
  if (ports.stdinPort === 0 && ports.stdoutPort === 0 && ports.stderrPort === 0) return undefined;
  if (passed) return passed.take(ports);
  throw new HakoError(
    "FAILED_PRECONDITION",
    "Standard streams cannot be passed through: the agent was started without agent.passfd_listener_port",
  );
}
