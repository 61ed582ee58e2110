import { closeSync, fsyncSync, openSync, readSync, writeSync } from "node:fs";
import { HakoError } from "#base/error.ts";
import { JsonObject } from "#cdh/own/json-object.ts";
import type { MapperTarget } from "#linux/device-mapper.ts";
import { encodeLuks2Header, LUKS2_DATA_OFFSET } from "#linux/luks2.ts";
import { type KeyDigest, type KeySlot, makeKeySlot, openKeySlot } from "./key-slot.ts";

const ENCRYPTION = "aes-xts-plain64";
const KEY_SIZE = 64;
const SECTOR = 512;
/** The binary header, and the largest metadata area of the format. */
const BINARY_SIZE = 4096;
const HEADER_MAX = 4 * 1024 * 1024;
const CHECKSUM_OFFSET = 448;
const CHECKSUM_SIZE = 64;
const MAGIC = "LUKS\xba\xbe";

/** A LUKS2 volume whose key is known: enough for the kernel to map it. */
export interface OpenVolume {
  readonly key: Buffer;
  readonly encryption: string;
  /** Bytes. */
  readonly offset: number;
  readonly sectorSize: number;
}

/** Makes an empty volume that `passphrase` opens; whatever was on the device is lost. */
export function formatVolume(device: string, passphrase: Uint8Array): OpenVolume {
  const key = Buffer.from(crypto.getRandomValues(new Uint8Array(KEY_SIZE)));
  const { keys, area } = makeKeySlot(key, passphrase);
  const header = encodeLuks2Header({
    uuid: crypto.randomUUID(),
    label: "",
    encryption: ENCRYPTION,
    sectorSize: SECTOR,
    keys,
  });
  const fd = openSync(device, "r+");
  try {
    writeAll(fd, area.data, area.offset);
    writeAll(fd, header, 0);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
  return { key, encryption: ENCRYPTION, offset: LUKS2_DATA_OFFSET, sectorSize: SECTOR };
}

function writeAll(fd: number, data: Uint8Array, offset: number): void {
  for (let done = 0; done < data.length; )
    done += writeSync(fd, data, done, data.length - done, offset + done);
}

/**
 * Opens a volume by a passphrase. Throws PERMISSION_DENIED when no slot takes it, INVALID_ARGUMENT for a device that
 * holds no sound LUKS2 header, UNIMPLEMENTED for what is not there.
 */
export function openVolume(device: string, passphrase: Uint8Array): OpenVolume {
  const fd = openSync(device, "r");
  try {
    const { keyslots, digests, segment } = readMetadata(fd, device);
    for (const [number, slot] of Object.entries(keyslots)) {
      const digest = Object.values(digests).find(({ keyslots: named }) => named?.includes(number));
      if (slot.type !== "luks2" || !digest) continue;
      const material = readAt(fd, Number(slot.area.offset), Number(slot.area.size), device);
      const key = openKeySlot(slot, material, passphrase, digest);
      if (key)
        return {
          key,
          encryption: segment.encryption,
          offset: Number(segment.offset),
          sectorSize: segment.sector_size,
        };
    }
  } finally {
    closeSync(fd);
  }
  throw new HakoError(
    "PERMISSION_DENIED",
    `Cannot open the LUKS2 volume on "${device}": no key slot takes the key`,
  );
}

interface Metadata {
  readonly keyslots: Readonly<Record<string, KeySlot>>;
  readonly digests: Readonly<Record<string, KeyDigest & { readonly keyslots?: readonly string[] }>>;
  readonly segment: {
    readonly type: string;
    readonly offset: string;
    readonly encryption: string;
    readonly sector_size: number;
    readonly integrity?: object;
  };
}

function readMetadata(fd: number, device: string): Metadata {
  const refuse = (problem: string): never => {
    throw new HakoError("INVALID_ARGUMENT", `Cannot open "${device}": ${problem}`);
  };
  const binary = readAt(fd, 0, BINARY_SIZE, device);
  if (binary.toString("latin1", 0, MAGIC.length) !== MAGIC || binary.readUInt16BE(6) !== 2)
    refuse("it has no LUKS2 header");
  const size = Number(binary.readBigUInt64BE(8));
  if (!(size > BINARY_SIZE && size <= HEADER_MAX)) refuse("its header has an impossible size");
  const header = readAt(fd, 0, size, device);
  const checksum = Buffer.from(header.subarray(CHECKSUM_OFFSET, CHECKSUM_OFFSET + 32));
  header.fill(0, CHECKSUM_OFFSET, CHECKSUM_OFFSET + CHECKSUM_SIZE);
  if (!Buffer.from(new Bun.CryptoHasher("sha256").update(header).digest()).equals(checksum))
    refuse("its header is damaged");
  const end = header.indexOf(0, BINARY_SIZE);
  const text = header.subarray(BINARY_SIZE, end < 0 ? size : end);
  JsonObject.parse(text, "a LUKS2 header");
  const {
    keyslots = {},
    digests = {},
    segments = {},
  } = JSON.parse(text.toString()) as Record<string, Record<string, never>>;
  const [segment] = Object.values(segments) as Metadata["segment"][];
  if (segment?.type !== "crypt" || Object.keys(segments).length !== 1)
    return refuse("it has not one encrypted segment");
  if (segment.integrity || segment.encryption !== ENCRYPTION) {
    throw new HakoError(
      "UNIMPLEMENTED",
      `Cannot open "${device}": encryption "${segment.encryption}", or integrity, is not there`,
    );
  }
  return { keyslots, digests, segment };
}

function readAt(fd: number, offset: number, size: number, device: string): Buffer {
  if (!(Number.isSafeInteger(offset) && offset >= 0 && size > 0 && size <= HEADER_MAX)) {
    throw new HakoError("INVALID_ARGUMENT", `Cannot open "${device}": its header names an impossible place`);
  }
  const bytes = Buffer.alloc(size);
  for (let done = 0; done < size; ) {
    const count = readSync(fd, bytes, done, size - done, offset + done);
    if (count === 0) throw new HakoError("INVALID_ARGUMENT", `Cannot open "${device}": it is too small`);
    done += count;
  }
  return bytes;
}

/** The table by which the kernel decrypts a device of that many bytes. */
export function cryptTarget(
  device: string,
  size: bigint,
  { key, encryption, offset, sectorSize }: OpenVolume,
): MapperTarget {
  const start = BigInt(offset) / 512n;
  const options = ["allow_discards", ...(sectorSize === SECTOR ? [] : [`sector_size:${sectorSize}`])];
  return {
    start: 0n,
    length: size / 512n - start,
    type: "crypt",
    parameters: `${encryption} ${key.toString("hex")} 0 ${device} ${start} ${options.length} ${options.join(" ")}`,
  };
}
