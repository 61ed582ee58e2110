/** Where data begins: behind both headers, as cryptsetup lays a LUKS2 volume out. */
export const LUKS2_DATA_OFFSET = 16 * 1024 * 1024;

const HEADER_SIZE = 16 * 1024;
const BINARY_SIZE = 4096;
const CHECKSUM_OFFSET = 448;
const CHECKSUM_ALGORITHM = "sha256";
const SALT_SIZE = 64;

export interface Luks2Volume {
  readonly uuid: string;
  readonly label: string;
  /** "aes-xts-plain64". */
  readonly encryption: string;
  /** Bytes. */
  readonly sectorSize: number;
  /** Key slots and digests in the form of the metadata; a volume without them cannot be opened by its header. */
  readonly keys?: { readonly keyslots: object; readonly digests: object };
}

/** Where the first key slot's area may begin: behind both headers. */
export const LUKS2_KEYSLOTS_OFFSET = 2 * 16 * 1024;

function metadata(volume: Luks2Volume): Buffer {
  const json = JSON.stringify({
    keyslots: volume.keys?.keyslots ?? {},
    tokens: {},
    segments: {
      "0": {
        type: "crypt",
        offset: String(LUKS2_DATA_OFFSET),
        size: "dynamic",
        iv_tweak: "0",
        encryption: volume.encryption,
        sector_size: volume.sectorSize,
      },
    },
    digests: volume.keys?.digests ?? {},
    config: {
      json_size: String(HEADER_SIZE - BINARY_SIZE),
      keyslots_size: String(LUKS2_DATA_OFFSET - 2 * HEADER_SIZE),
    },
  });
  const area = Buffer.alloc(HEADER_SIZE - BINARY_SIZE);
  area.write(json, 0, "latin1");
  return area;
}

function encodeHeader(volume: Luks2Volume, salt: Uint8Array, magic: string, offset: number): Buffer {
  const header = Buffer.alloc(HEADER_SIZE);
  header.write(magic, 0, "latin1");
  header.writeUInt16BE(2, 6);
  header.writeBigUInt64BE(BigInt(HEADER_SIZE), 8);
  header.writeBigUInt64BE(1n, 16);
  header.write(volume.label, 24, 47, "latin1");
  header.write(CHECKSUM_ALGORITHM, 72, "latin1");
  header.set(salt, 104);
  header.write(volume.uuid, 168, 39, "latin1");
  header.writeBigUInt64BE(BigInt(offset), 256);
  metadata(volume).copy(header, BINARY_SIZE);
  header.set(new Bun.CryptoHasher(CHECKSUM_ALGORITHM).update(header).digest(), CHECKSUM_OFFSET);
  return header;
}

/**
 * Both headers of a LUKS2 volume (LUKS2 On-Disk Format Specification 1.1, sections 2 and 3). Without key slots the
 * volume's key is nowhere on it, so that nobody can open it again once the key is forgotten. Each copy has a salt of
 * its own.
 */
export function encodeLuks2Header(volume: Luks2Volume): Buffer {
  const salt = () => crypto.getRandomValues(new Uint8Array(SALT_SIZE));
  return Buffer.concat([
    encodeHeader(volume, salt(), "LUKS\xba\xbe", 0),
    encodeHeader(volume, salt(), "SKUL\xba\xbe", HEADER_SIZE),
  ]);
}
