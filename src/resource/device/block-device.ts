import { openDeviceNumber } from "#linux/device-number.ts";
import type { Device } from "#oci/runtime-spec.ts";
import { diskPath } from "#resource/storage.ts";
import { volumeSerial } from "#resource/volume/block.ts";
import type { Volume, VolumePlace } from "#resource/volume/volume.ts";

/**
 * A device of a container's list. A block device of the host becomes a disk of the machine and has the guest's number
 * in the container; what is no block device is left out: the guest has its own null, tty, fuse and so on, and other
 * character devices of the host cannot be in it.
 */
export async function prepareDevice(
  device: Device,
  place: Pick<VolumePlace, "containerId" | "index">,
): Promise<Volume> {
  if (device.type !== "b") return { [Symbol.dispose]() {} };
  const { major = 0, minor = 0, path } = device;
  const serial = volumeSerial(place);
  const file = openDeviceNumber({ kind: "block", major, minor }, false);
  return {
    disk: { serial, fd: file.number, readOnly: false },
    device: { vmPath: diskPath(serial), containerPath: path },
    specDevice: device,
    [Symbol.dispose]: () => file[Symbol.dispose](),
  };
}
