import { findStatus, findText, listDirectory } from "#linux/file.ts";
import { deviceStream } from "#sys/byte-stream.ts";
import { O, openFd } from "#sys/fd.ts";
import { loopbackListen, vsockListen } from "#sys/socket.ts";
import { logger } from "#telemetry/log.ts";
import { serveListener, serveUnix } from "#ttrpc/listener.ts";
import { serveSerialLink } from "#ttrpc/serial-link.ts";
import type { TtrpcServer } from "#ttrpc/server.ts";
import { waitForDevice } from "./device/hotplug.ts";
import type { ServerAddress } from "./option-value.ts";

/** VMADDR_CID_HOST (linux/vm_sockets.h): containers of the guest may reach the port too, and are turned away. */
const HOST_CID = 2;
const PORT_TIMEOUT_MS = 10_000;
const log = logger("server");

/** The device node of the virtio-serial port that the host gave this name. Undefined while there is none. */
export function findSerialPort(name: string, sysfs = "/sys"): string | undefined {
  const directory = `${sysfs}/class/virtio-ports`;
  const port = listDirectory(directory).find(
    (entry) => findText(`${directory}/${entry}/name`)?.trim() === name,
  );
  return port && `/dev/${port}`;
}

async function serveSerialPort(server: TtrpcServer, name: string): Promise<Disposable> {
  const find = () => {
    const path = findSerialPort(name);
    return path && findStatus(path) ? path : undefined;
  };
  const path = await waitForDevice(`virtio-serial port "${name}"`, PORT_TIMEOUT_MS, find);
  const link = deviceStream(openFd(path, O.RDWR | O.NOCTTY | O.NONBLOCK), { hangUpIsEnd: false });
  void serveSerialLink(link, (session) => {
    if (server.stopped) session.close();
    else server.serve(session);
  }).then((error) => {
    if (!server.stopped) log.error("the serial link has ended", { error });
  });
  return { [Symbol.dispose]: () => link.close() };
}

/** Offers the server's services at an address until disposed. */
export async function serveAt(server: TtrpcServer, address: ServerAddress): Promise<Disposable> {
  switch (address.kind) {
    case "vsock":
      return serveListener(server, vsockListen(address.port), { peerCid: HOST_CID });
    case "virtio-serial":
      return await serveSerialPort(server, address.name);
    case "unix":
      return serveUnix(server, address.path);
    case "tcp":
      return serveListener(server, loopbackListen(address.port));
  }
}
