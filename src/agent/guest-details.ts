import { HakoError } from "#base/error.ts";
import { version } from "#base/version.ts";
import { findStatus, findText } from "#linux/file.ts";
import type { GuestDetailsRequest, GuestDetailsResponse } from "#proto/agent.ts";
import { deviceDrivers } from "./device/device-handler.ts";
import { storageDrivers } from "./storage/storage-set.ts";

const MEMORY = "/sys/devices/system/memory";

/** Bytes of a hot-pluggable block of memory; 0 for a kernel without memory hotplug. The file is hexadecimal. */
function memoryBlockSize(directory: string): bigint {
  const text = findText(`${directory}/block_size_bytes`)?.trim();
  if (text === undefined) return 0n;
  if (/^[0-9a-f]{1,16}$/i.test(text)) return BigInt(`0x${text}`);
  throw new HakoError(
    "INTERNAL",
    `Cannot read the size of a memory block: "${text.slice(0, 40)}" is no number`,
  );
}

/** What the runtime asks about the guest after it has started. */
export function readGuestDetails(request: GuestDetailsRequest, directory = MEMORY): GuestDetailsResponse {
  return {
    memBlockSizeBytes: request.memBlockSize ? memoryBlockSize(directory) : 0n,
    supportMemHotplugProbe: request.memHotplugProbe && findStatus(`${directory}/probe`) !== undefined,
    agentDetails: {
      version,
      initDaemon: process.pid === 1,
      deviceHandlers: [...deviceDrivers],
      storageHandlers: [...storageDrivers],
      supportsSeccomp: true,
      extraFeatures: [],
    },
  };
}
