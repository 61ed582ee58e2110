import { HakoError } from "#base/error.ts";

/** Where an agent answers, seen from the host. */
export type AgentAddress =
  /** AF_VSOCK through the host's kernel. */
  | { readonly kind: "vsock"; readonly cid: number; readonly port: number }
  /** A unix socket of the monitor, behind which it offers all vsock ports after a CONNECT line (Firecracker's way). */
  | { readonly kind: "hybrid-vsock"; readonly path: string; readonly port: number }
  /** A unix socket at whose other end is the agent's serial port. */
  | { readonly kind: "serial"; readonly path: string }
  /** A unix socket that the agent listens on itself. */
  | { readonly kind: "unix"; readonly path: string }
  /** TCP on 127.0.0.1. */
  | { readonly kind: "tcp"; readonly port: number };

/** Context ids from this one on belong to guests (VMADDR_CID_HOST is 2). */
const FIRST_GUEST_CID = 3;

/** VMADDR_PORT_ANY and VMADDR_CID_ANY name no peer. */
const ANY = 0xffff_ffff;

/** Port that Kata's agents listen on. */
export const DEFAULT_AGENT_PORT = 1024;

/**
 * Reads `vsock://CID:PORT`, `hvsock://PATH:PORT`, `serial://PATH`, `unix://PATH` or `tcp://127.0.0.1:PORT`, with an absolute path or an
 * abstract name (`@name`). Throws INVALID_ARGUMENT.
 */
export function parseAddress(text: string): AgentAddress {
  const [, scheme, rest = ""] = /^([a-z]+):\/\/(.+)$/s.exec(text) ?? [];
  switch (scheme) {
    case "vsock": {
      const [, cid = "", port = ""] = /^(\d+):(\d+)$/.exec(rest) ?? [];
      return {
        kind: "vsock",
        cid: parseNumber(cid, FIRST_GUEST_CID, text),
        port: parseNumber(port, 0, text),
      };
    }
    case "hvsock": {
      const [, path = "", port = ""] = /^(.+):(\d+)$/s.exec(rest) ?? [];
      return { kind: "hybrid-vsock", path: checkPath(path, text), port: parseNumber(port, 0, text) };
    }
    case "tcp": {
      const [, port = ""] = /^127\.0\.0\.1:(\d{1,5})$/.exec(rest) ?? [];
      return { kind: "tcp", port: parseNumber(port, 1, text) };
    }
    case "serial":
    case "unix":
      return { kind: scheme, path: checkPath(rest, text) };
    default:
      throw invalid(text, "it starts with none of vsock://, hvsock://, serial://, unix:// and tcp://");
  }
}

/** The text that {@link parseAddress} reads. */
export function formatAddress(address: AgentAddress): string {
  switch (address.kind) {
    case "vsock":
      return `vsock://${address.cid}:${address.port}`;
    case "hybrid-vsock":
      return `hvsock://${address.path}:${address.port}`;
    case "tcp":
      return `tcp://127.0.0.1:${address.port}`;
    default:
      return `${address.kind}://${address.path}`;
  }
}

function parseNumber(digits: string, least: number, text: string): number {
  const value = Number(digits);
  if (digits === "" || value < least || value >= ANY)
    throw invalid(text, "it has no usable context id or port");
  return value;
}

function checkPath(path: string, text: string): string {
  if (!/^[/@]./s.test(path)) throw invalid(text, "it has no absolute path");
  return path;
}

function invalid(text: string, reason: string): HakoError {
  return new HakoError("INVALID_ARGUMENT", `Cannot use agent address "${text}": ${reason}`);
}
