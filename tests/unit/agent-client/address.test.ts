import { expect, test } from "bun:test";
import { type AgentAddress, formatAddress, parseAddress } from "#agent-client/address.ts";

const addresses: [string, AgentAddress][] = [
  ["vsock://3:1024", { kind: "vsock", cid: 3, port: 1024 }],
  ["hvsock:///run/a b/vm.sock:1024", { kind: "hybrid-vsock", path: "/run/a b/vm.sock", port: 1024 }],
  ["hvsock://@vm:7:1024", { kind: "hybrid-vsock", path: "@vm:7", port: 1024 }],
  ["serial:///run/hako/agent.sock", { kind: "serial", path: "/run/hako/agent.sock" }],
  ["unix://@abstract", { kind: "unix", path: "@abstract" }],
];

test.each(addresses)("%s is read and written", (text, address) => {
  expect(parseAddress(text)).toEqual(address);
  expect(formatAddress(address)).toBe(text);
});

test.each([
  "",
  "vsock://",
  "vsock://3",
  "vsock://2:1024",
  "vsock://-1:1024",
  "vsock://4294967295:1024",
  "vsock://3:4294967295",
  "vsock://3:10x",
  "hvsock:///run/vm.sock",
  "unix://relative/path",
  "unix:///",
  "tcp://host:1",
])("%p is refused", (text) => {
  expect(() => parseAddress(text)).toThrow(`Cannot use agent address "${text}"`);
});
