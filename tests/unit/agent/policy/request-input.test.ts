import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { policyFieldName, requestInput } from "#agent/policy/request-input.ts";
import { requestNames } from "#agent/policy/request-name.ts";
import { toJson } from "#policy/rego/value.ts";
import * as agent from "#proto/agent.ts";
import * as oci from "#proto/oci.ts";
import * as types from "#proto/types.ts";

const proto = join(import.meta.dir, "../../../../proto");
const modules: Readonly<Record<string, object>> = {
  "agent.proto": agent,
  "oci.proto": oci,
  "types.proto": types,
};

/** A field, or a union, which the generated code has as one. */
const FIELD = /^ {2}(?:(?:optional |repeated )?[\w.]+(?:<[^>]+>)? (\w+) = \d+|oneof (\w+) \{)/gm;

/** Messages of a .proto file and the names of their fields. */
function messagesOf(file: string): Map<string, string[]> {
  const text = readFileSync(join(proto, file), "utf8");
  const messages = new Map<string, string[]>();
  for (const [, name = "", body = ""] of text.matchAll(/^message (\w+) \{\n(.*?)^\}/gms)) {
    messages.set(
      name,
      [...body.matchAll(FIELD)].map((match) => match[1] ?? match[2] ?? ""),
    );
  }
  return messages;
}

test("every field of the protocol has its own name in a policy", () => {
  let compared = 0;
  for (const [file, module] of Object.entries(modules)) {
    for (const [message, fields] of messagesOf(file)) {
      const codec = Object.entries(module).find(([name]) => name === message)?.[1] as
        | { create(): object }
        | undefined;
      if (!codec) continue;
      const names = Object.keys(codec.create()).filter((name) => name !== "_unknownFields");
      expect(names.map(policyFieldName).sort()).toEqual(
        fields.map((field) => (field === "type" ? "type_" : field)).sort(),
      );
      compared += fields.length;
    }
  }
  expect(compared).toBeGreaterThan(250);
});

test("hako's additions are seen only when they are used", () => {
  let additions = 0;
  const text = readFileSync(join(proto, "oci.proto"), "utf8");
  for (const [, message = "", body = ""] of text.matchAll(/^message (\w+) \{\n(.*?)^\}/gms)) {
    const own = [...body.matchAll(/(\w+) = 1\d{3};/g)].map((match) => match[1] ?? "");
    const codec = Object.entries(oci).find(([name]) => name === message)?.[1] as
      | { create(): object }
      | undefined;
    if (!codec) continue;
    const seen = Object.keys(toJson(requestInput("X", codec.create())) as object);
    expect(own.filter((name) => seen.includes(name))).toEqual([]);
    expect(seen.length + own.length).toBe([...body.matchAll(FIELD)].length);
    additions += own.length;
  }
  expect(additions).toBeGreaterThan(5);
});

test("the maps of the protocol are known", () => {
  const maps = ["agent.proto", "oci.proto", "types.proto"].flatMap((file) =>
    [...readFileSync(join(proto, file), "utf8").matchAll(/map<string, \w+> (\w+)/g)].map(
      (match) => match[1] ?? "",
    ),
  );
  // The others are members of answers, which no policy sees.
  const answers = ["stats", "hugetlb_stats"];
  expect(maps.filter((name) => !answers.includes(name)).sort()).toEqual([
    "Annotations",
    "Rdma",
    "Sysctl",
    "TimeOffsets",
    "Unified",
  ]);
});

test("each call is decided by the rule of its request message", () => {
  const text = readFileSync(join(proto, "agent.proto"), "utf8");
  const calls = [...text.matchAll(/rpc (\w+)\((\w+)\)/g)].map(([, name = "", request = ""]) => [
    Object.keys(requestNames).find((key) => key.toLowerCase() === name.toLowerCase()),
    request,
  ]);
  expect(Object.fromEntries(calls)).toEqual(requestNames);
  expect(calls.length).toBe(42);
});

test("a request as policies of Kata expect it", () => {
  const message = agent.CreateContainerRequest.fromPartial({
    containerId: "c1",
    sandboxPidns: true,
    OCI: {
      Annotations: { "io.kubernetes.cri.containerType": "x", fooBar: "y" },
      Mounts: [{ destination: "/a", type: "bind", source: "/b", options: ["ro"] }],
      Process: { Rlimits: [{ Type: "RLIMIT_NOFILE", Hard: 18446744073709551615n, Soft: 1024n }] },
      Linux: { Sysctl: { "net.ipv4.ipForward": "1" }, Resources: {} },
    },
    storages: [{ driver: "blk", driverOptions: ["a=b"], mountPoint: "/m" }],
  });
  expect(toJson(requestInput("CreateContainerRequest", message))).toMatchObject({
    container_id: "c1",
    sandbox_pidns: true,
    string_user: null,
    OCI: {
      Annotations: { "io.kubernetes.cri.containerType": "x", fooBar: "y" },
      Mounts: [{ destination: "/a", type_: "bind", source: "/b", options: ["ro"] }],
      Process: { Rlimits: [{ Type: "RLIMIT_NOFILE", Hard: 18446744073709551615n, Soft: 1024 }] },
      Linux: { Sysctl: { "net.ipv4.ipForward": "1" }, Seccomp: null },
      Hooks: null,
    },
    storages: [{ driver: "blk", driver_options: ["a=b"], mount_point: "/m", fs_group: null }],
  });
  const user = requestInput("X", oci.User.fromPartial({ UID: 1 }));
  expect(toJson(user)).toEqual({ UID: 1, GID: 0, AdditionalGids: [], Username: "" });
  expect(toJson(requestInput("X", oci.User.fromPartial({ Umask: 18 })))).toMatchObject({ Umask: 18 });
});

test("a file copied is described without its content", () => {
  const link = agent.CopyFileRequest.fromPartial({
    path: "/a",
    fileMode: 0o120777,
    data: Buffer.from("..data/x"),
    fileSize: 8n,
  });
  expect(toJson(requestInput("CopyFileRequest", link))).toEqual({
    path: "/a",
    file_type: "Symlink",
    symlink_target: "..data/x",
    file_size: 8,
    file_mode: 0o120777,
    dir_mode: 0,
    uid: 0,
    gid: 0,
    offset: 0,
  });
  const file = agent.CopyFileRequest.fromPartial({ fileMode: 0o100644, data: Buffer.from("secret") });
  expect(toJson(requestInput("CopyFileRequest", file))).toMatchObject({
    file_type: "Regular",
    symlink_target: null,
  });
  const broken = agent.CopyFileRequest.fromPartial({ fileMode: 0o120777, data: Uint8Array.of(0xff, 0) });
  expect(() => requestInput("CopyFileRequest", broken)).toThrow("its target is no text");
});
