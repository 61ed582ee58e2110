import { existsSync, readFileSync } from "node:fs";
import { HakoError } from "#base/error.ts";
import { version } from "#base/version.ts";
import type { GuestDetailsRequest, GuestDetailsResponse } from "#proto/agent.ts";
import { E, isErrno } from "#sys/errno.ts";
import { deviceDrivers } from "./device/device-handler.ts";
import { storageDrivers } from "./storage/storage-set.ts";

const MEMORY = "/sys/devices/system/memory";

/** Bytes of a hot-pluggable block of memory; 0 for a kernel without memory hotplug. The file is hexadecimal. */
function memoryBlockSize(directory: string): bigint {
  let text: string;
  try {
    text = readFileSync(`${directory}/block_size_bytes`, "latin1").trim();
  } catch (error) {
    if (isErrno(error, E.ENOENT)) return 0n;
    throw error;
  }
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
    supportMemHotplugProbe: request.memHotplugProbe && existsSync(`${directory}/probe`),
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
