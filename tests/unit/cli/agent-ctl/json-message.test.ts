import { expect, test } from "bun:test";
import { JsonMessages } from "#cli/agent-ctl/json-message.ts";
import { buildRequest } from "#cli/agent-ctl/request.ts";
import { loadSchema, parseSchema } from "#cli/agent-ctl/schema.ts";
import * as agent from "#proto/agent.ts";
import * as oci from "#proto/oci.ts";

const schema = loadSchema();
const messages = new JsonMessages(schema);

test("the schema has every field that the generated code has", () => {
  let compared = 0;
  for (const module of [agent, oci]) {
    for (const [name, codec] of Object.entries(module)) {
      const fields = schema.messages.get(name);
      if (!fields || !("create" in codec)) continue;
      const keys = Object.keys(codec.create()).filter((key) => key !== "_unknownFields");
      expect(Object.keys(messages.toJson(name, codec.create(), () => null)).length).toBeGreaterThanOrEqual(0);
      const units = new Set(fields.map((field) => field.union ?? field.name));
      expect(units.size).toBe(keys.length);
      compared += keys.length;
    }
  }
  expect(compared).toBeGreaterThan(250);
  expect(schema.services.get("grpc.AgentService")?.length).toBe(42);
});

test("JSON becomes a message and comes back", () => {
  const json = {
    container_id: "c",
    OCI: {
      Process: { Args: ["a"], Rlimits: [{ Type: "X", Hard: "18446744073709551615", Soft: 5 }] },
      Mounts: [{ destination: "/d", type_: "bind" }],
      Annotations: { "a.b/c_d": "x" },
      Linux: { Seccomp: { Syscalls: [{ Names: ["n"], errnoret: 7 }] } },
    },
    storages: [{ mount_point: "/m", fs_group: { group_id: 4, group_change_policy: "OnRootMismatch" } }],
  };
  const message = agent.CreateContainerRequest.fromPartial(
    messages.toMessage("CreateContainerRequest", json) as never,
  );
  expect(message.OCI?.Process?.Rlimits[0]).toMatchObject({ Hard: 18446744073709551615n, Soft: 5n });
  expect(message.OCI?.Mounts[0]?.type).toBe("bind");
  expect(message.OCI?.Annotations).toEqual({ "a.b/c_d": "x" });
  expect(message.OCI?.Linux?.Seccomp?.Syscalls[0]?.ErrnoRet).toEqual({ $case: "errnoret", errnoret: 7 });
  expect(message.storages[0]?.fsGroup).toMatchObject({ groupId: 4, groupChangePolicy: 1 });
  const decoded = agent.CreateContainerRequest.decode(agent.CreateContainerRequest.encode(message).finish());
  expect(messages.toJson("CreateContainerRequest", decoded, () => null)).toMatchObject({
    container_id: "c",
    string_user: null,
    OCI: {
      Process: { Args: ["a"], Rlimits: [{ Type: "X", Hard: "18446744073709551615", Soft: 5 }] },
      Mounts: [{ destination: "/d", type: "bind" }],
      Annotations: { "a.b/c_d": "x" },
      Linux: { Seccomp: { Syscalls: [{ Names: ["n"], errnoret: 7 }] } },
    },
    storages: [{ mount_point: "/m", fs_group: { group_id: 4, group_change_policy: 1 } }],
  });
});

test("words add up to a request, each over the ones before", () => {
  const words = [
    'json://{"container_id": "a", "exec_id": "e"}',
    "container_id=b",
    'process.Args=["ls", "-l"]',
    "process.Cwd=/",
    "process.User.UID=7",
  ];
  expect(buildRequest(messages, "ExecProcessRequest", words)).toEqual({
    containerId: "b",
    execId: "e",
    process: { Args: ["ls", "-l"], Cwd: "/", User: { UID: 7 } },
  });
  expect(buildRequest(messages, "WriteStreamRequest", ["data=héllo"])).toEqual({
    data: Buffer.from("héllo"),
  });
  expect(buildRequest(messages, "WriteStreamRequest", ['json://{"data": [1, 2]}'])).toEqual({
    data: Uint8Array.of(1, 2),
  });
});

test("what no message can be made of is refused with its place", () => {
  const bad: [words: string[], message: string][] = [
    [["x=1"], 'no field "x"'],
    [["process.x=1"], 'no field "x" in Process'],
    [['json://{"process": []}'], "ExecProcessRequest.process: it is not an object"],
    [['json://{"process": {"Args": "ls"}}'], "process.Args: it is not an array"],
    [['json://{"process": {"Args": [1]}}'], "process.Args[0]: it is not a string"],
    [['json://{"process": {"Terminal": 1}}'], "process.Terminal: it is not true or false"],
    [["stdin_port=1.5"], "stdin_port: it is not a whole number"],
    [["json://[]"], "it is no object"],
    [["file:///nowhere.json"], 'Cannot read "/nowhere.json"'],
    [["word"], "write NAME=VALUE"],
  ];
  for (const [words, message] of bad) {
    expect(() => buildRequest(messages, "ExecProcessRequest", words)).toThrow(message);
  }
});

test("a file that is no schema is a defect, said plainly", () => {
  expect(() => parseSchema(["message X { string a ="])).toThrow("Cannot read a .proto file");
});
