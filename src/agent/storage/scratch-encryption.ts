import { HakoError } from "#base/error.ts";
import { blockDeviceSize, MappedDevice } from "#linux/device-mapper.ts";
import { formatExt4 } from "#linux/ext4/format.ts";
import { encodeLuks2Header, LUKS2_DATA_OFFSET } from "#linux/luks2.ts";
import { check } from "#sys/errno.ts";
import { O, openFd } from "#sys/fd.ts";
import { SYS, syscallBlocking } from "#sys/syscall.ts";

const SECTOR = 512n;
const ENCRYPTION = "aes-xts-plain64";
/** AES-256 in XTS mode takes two keys. */
const KEY_SIZE = 64;
/** The key's volume, and a file system on it. */
const SIZE_MIN = BigInt(LUKS2_DATA_OFFSET) + (4n << 20n);

async function writeAt(device: string, offset: bigint, data: Uint8Array): Promise<void> {
  using file = openFd(device, O.WRONLY);
  for (let written = 0; written < data.length; ) {
    const rest = data.subarray(written);
    const result = await syscallBlocking(
      SYS.pwrite64,
      file.number,
      rest,
      rest.length,
      offset + BigInt(written),
    );
    written += check(result, `Cannot write to "${device}"`);
  }
}

/**
 * Turns a disk into scratch space that only this guest can read, and only until its end: a LUKS2 volume with a random
 * key that is given to the kernel and kept nowhere else. Whatever was on the disk is lost.
 */
export async function openEncryptedScratch(device: string, name: string): Promise<MappedDevice> {
  const size = blockDeviceSize(device);
  if (size < SIZE_MIN) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Cannot encrypt "${device}": it has ${size} bytes, ${SIZE_MIN} are needed`,
    );
  }
  const volume = { uuid: crypto.randomUUID(), label: "", encryption: ENCRYPTION, sectorSize: Number(SECTOR) };
  await writeAt(device, 0n, encodeLuks2Header(volume));
  const key = crypto.getRandomValues(new Uint8Array(KEY_SIZE));
  const start = BigInt(LUKS2_DATA_OFFSET) / SECTOR;
  try {
    const target = {
      start: 0n,
      length: size / SECTOR - start,
      type: "crypt",
      parameters: `${ENCRYPTION} ${Buffer.from(key).toString("hex")} 0 ${device} ${start} 1 allow_discards`,
    };
    return await MappedDevice.create(name, [target], { readOnly: false, secret: true });
  } finally {
    key.fill(0);
  }
}

/** Makes an ext4 file system without a journal on a device. */
export async function makeScratchFileSystem(device: string): Promise<void> {
  for (const { offset, data } of formatExt4(blockDeviceSize(device), "scratch"))
    await writeAt(device, offset, data);
}
