import { statSync } from "node:fs";
import { HakoError } from "#base/error.ts";
import type { GuestInterface } from "#resource/network/guest-interface.ts";
import type { Endpoint } from "./endpoint.ts";

/** The socket of a process (a software switch) that moves the machine's packets. Throws NOT_FOUND, INVALID_ARGUMENT. */
export function openVhostUserEndpoint(socketPath: string, queues: number, guest: GuestInterface): Endpoint {
  const status = statSync(socketPath, { throwIfNoEntry: false });
  if (status === undefined) {
    throw new HakoError("NOT_FOUND", `There is no vhost-user socket "${socketPath}"`);
  }
  if (!status.isSocket()) {
    throw new HakoError("INVALID_ARGUMENT", `Cannot use "${socketPath}" as a vhost-user socket: it is none`);
  }
  const { macAddress, mtu } = guest;
  return {
    kind: "vhost-user",
    linkIndex: undefined,
    device: { kind: "vhost-user", socketPath, macAddress, mtu, queues },
    guest,
    [Symbol.dispose]() {},
  };
}
