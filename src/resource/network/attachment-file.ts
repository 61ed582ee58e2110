import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { HakoError } from "#base/error.ts";
import { validateId } from "#base/id.ts";
import { addressFamily, parseNetwork } from "#linux/netlink/ip-address.ts";
import { decodeMac, encodeMac } from "#linux/netlink/mac-address.ts";
import { NUD } from "#linux/netlink/neighbor.ts";
import type { GuestInterface, GuestNeighbor, GuestRoute } from "./guest-interface.ts";

const MAX_BYTES = 1024 * 1024;
const MAX_DEVICES = 64;
const MAX_ENTRIES = 4096;
const MAX_QUEUES = 256;
const DEFAULT_MTU = 1500;

/** An interface that a sandbox is given by a file (Kata: directly attachable network), not by scanning a namespace. */
export interface AttachedInterface {
  readonly guest: GuestInterface;
  readonly device:
    | { readonly type: "vhost-user"; readonly path: string; readonly queues: number }
    | { readonly type: "host-tap"; readonly tapName: string; readonly queues: number };
}

export interface AttachmentFile {
  /** Path of the namespace with the TAP devices; the sandbox's own when absent. */
  readonly netns?: string;
  readonly interfaces: readonly AttachedInterface[];
}

/** `<directory>/<sandbox id>.json`; undefined when there is none. Throws INVALID_ARGUMENT naming what is wrong where. */
export function readAttachmentFile(directory: string, sandboxId: string): AttachmentFile | undefined {
  const path = join(directory, `${validateId(sandboxId, "sandbox id")}.json`);
  const status = statSync(path, { throwIfNoEntry: false });
  if (status === undefined) return undefined;
  if (status.size > MAX_BYTES) {
    throw new HakoError("INVALID_ARGUMENT", `Network file "${path}" is larger than ${MAX_BYTES} bytes`);
  }
  return new Reader(path).file(readFileSync(path, "utf8"));
}

/** Reads the JSON, naming file and member in what it throws. */
class Reader {
  readonly #path: string;

  constructor(path: string) {
    this.#path = path;
  }

  file(text: string): AttachmentFile {
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch (cause) {
      throw new HakoError("INVALID_ARGUMENT", `Network file "${this.#path}" is not JSON`, { cause });
    }
    const root = this.#table(value, "(top level)");
    const netns = root.netns === undefined ? undefined : this.#string(root.netns, "netns");
    const interfaces = this.#list(root.devices, "devices", MAX_DEVICES).map((device, index) =>
      this.#interface(device, `devices[${index}]`),
    );
    return { ...(netns === undefined || netns === "" ? {} : { netns }), interfaces };
  }

  #interface(value: unknown, at: string): AttachedInterface {
    const table = this.#table(value, at);
    const info = this.#table(table.network_info ?? {}, `${at}.network_info`);
    const link = this.#table(info.interface ?? {}, `${at}.network_info.interface`);
    const mtu =
      link.mtu === undefined ? 0 : this.#number(link.mtu, `${at}.network_info.interface.mtu`, 65_535);
    const list = (name: string, parent: Record<string, unknown>) =>
      this.#list(parent[name] ?? [], `${at}.network_info.${name}`, MAX_ENTRIES);
    return {
      device: this.#device(table.device, `${at}.device`),
      guest: {
        name: this.#string(table.name, `${at}.name`),
        macAddress: this.#mac(table.guest_mac, `${at}.guest_mac`),
        mtu: mtu === 0 ? DEFAULT_MTU : mtu,
        flags: 0,
        addresses: list("ip_addresses", link).map((item, index) =>
          this.#checked(parseNetwork, item, `${at}.network_info.interface.ip_addresses[${index}]`),
        ),
        routes: list("routes", info).map((item, index) =>
          this.#route(item, `${at}.network_info.routes[${index}]`),
        ),
        neighbors: list("neighbors", info).map((item, index) =>
          this.#neighbor(item, `${at}.network_info.neighbors[${index}]`),
        ),
      },
    };
  }

  #device(value: unknown, at: string): AttachedInterface["device"] {
    const table = this.#table(value, at);
    const queues =
      table.queue_num === undefined
        ? 1
        : Math.max(1, this.#number(table.queue_num, `${at}.queue_num`, MAX_QUEUES));
    switch (table.type) {
      case "vhost-user":
        return { type: "vhost-user", path: this.#string(table.path, `${at}.path`), queues };
      case "host-tap":
        return { type: "host-tap", tapName: this.#string(table.tap_name, `${at}.tap_name`), queues };
      default:
        throw this.#wrong(`${at}.type`, '"vhost-user" or "host-tap"');
    }
  }

  #route(value: unknown, at: string): GuestRoute {
    const table = this.#table(value, at);
    const text = (name: string) =>
      table[name] === undefined || table[name] === ""
        ? undefined
        : this.#string(table[name], `${at}.${name}`);
    const dest = text("dest");
    const destination = dest === undefined ? undefined : this.#checked(parseNetwork, dest, `${at}.dest`);
    const gateway = text("gateway");
    const source = text("source");
    const anyAddress = destination?.address ?? gateway ?? source;
    if (anyAddress === undefined) throw this.#wrong(at, "a route with a destination or a gateway");
    const number = (name: string) =>
      table[name] === undefined ? 0 : this.#number(table[name], `${at}.${name}`, 255);
    return {
      ...(destination && destination.prefixLength > 0 && { destination }),
      ...(gateway !== undefined && { gateway }),
      ...(source !== undefined && { source }),
      family: this.#checked(addressFamily, anyAddress, at),
      scope: number("scope"),
      flags: number("flags"),
    };
  }

  #neighbor(value: unknown, at: string): GuestNeighbor {
    const table = this.#table(value, at);
    const { address } = this.#checked(parseNetwork, table.ip_address, `${at}.ip_address`);
    const macAddress = this.#mac(table.hardware_addr, `${at}.hardware_addr`);
    const number = (name: string) =>
      table[name] === undefined ? 0 : this.#number(table[name], `${at}.${name}`, 255);
    return { address, macAddress, state: number("state") || NUD.PERMANENT, flags: number("flags") };
  }

  #mac(value: unknown, at: string): string {
    return decodeMac(this.#checked(encodeMac, value, at)) ?? "";
  }

  #checked<T>(parse: (text: string) => T, value: unknown, at: string): T {
    const text = this.#string(value, at);
    try {
      return parse(text);
    } catch (cause) {
      throw new HakoError("INVALID_ARGUMENT", `Network file "${this.#path}", member "${at}"`, { cause });
    }
  }

  #table(value: unknown, at: string): Record<string, unknown> {
    if (typeof value === "object" && value !== null && !Array.isArray(value))
      return value as Record<string, unknown>;
    throw this.#wrong(at, "an object");
  }

  #list(value: unknown, at: string, limit: number): readonly unknown[] {
    if (Array.isArray(value) && value.length <= limit) return value;
    throw this.#wrong(at, `a list of at most ${limit}`);
  }

  #string(value: unknown, at: string): string {
    if (typeof value === "string") return value;
    throw this.#wrong(at, "a string");
  }

  #number(value: unknown, at: string, max: number): number {
    if (typeof value === "number" && Number.isInteger(value) && value >= 0 && value <= max) return value;
    throw this.#wrong(at, `a whole number from 0 to ${max}`);
  }

  #wrong(at: string, expected: string): HakoError {
    return new HakoError(
      "INVALID_ARGUMENT",
      `Network file "${this.#path}", member "${at}": expected ${expected}`,
    );
  }
}
