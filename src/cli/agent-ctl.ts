import type { Command } from "./command.ts";
import { JSON_OPTION } from "./command.ts";

export const command: Command = {
  name: "agent-ctl",
  usage: "[OPTIONS] --server-addr ADDRESS CALL [ARGUMENT...] | list [CALL]",
  summary: "Make calls to an agent, ours or Kata's.",
  details: `ADDRESS is unix://PATH, unix://@NAME, vsock://CID:PORT, hvsock://PATH:PORT (Firecracker, Cloud Hypervisor), serial://PATH
or tcp://127.0.0.1:PORT. CALL is a call of the agent's protocol by its name, as GetGuestDetails; "list" prints all of them,
"list CALL" the fields of a request. Each ARGUMENT adds to the request: json://{...}, file://PATH (JSON), NAME=VALUE, or
NAME=@PATH for the content of a file; dots in NAME lead into messages, as process.Args=["ls"]. Bytes are base64 in JSON,
plain text in NAME=VALUE. Several calls over one connection are given by -c. The exit code is 1 when a call fails.`,
  options: [
    { name: "server-addr", kind: "value", placeholder: "ADDRESS", help: "Where the agent answers" },
    {
      name: "cmd",
      short: "c",
      kind: "list",
      placeholder: '"CALL ARGUMENT..."',
      help: "A call; may be given many times",
    },
    {
      name: "bundle",
      kind: "value",
      placeholder: "DIR",
      help: "Take the OCI specification of CreateContainer from DIR/config.json",
    },
    { name: "repeat", kind: "value", placeholder: "N", help: "Make the calls N times and print figures" },
    {
      name: "timeout",
      kind: "value",
      placeholder: "SECONDS",
      help: "Give a call up after this time (default: never)",
    },
    { name: "keep-going", kind: "flag", help: "Go on after a call that failed" },
    JSON_OPTION,
  ],
  positionals: { min: 0, max: Number.POSITIVE_INFINITY },
  async run(input) {
    const { listCalls, makeCalls } = await import("./agent-ctl/connect.ts");
    return input.positionals[0] === "list" ? listCalls(input) : await makeCalls(input);
  },
};
