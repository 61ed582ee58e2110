import { HakoError } from "#base/error.ts";
import { check, E } from "#sys/errno.ts";
import { O, openFd } from "#sys/fd.ts";
import { SYS, syscall, syscallBlocking } from "#sys/syscall.ts";

// linux/dm-ioctl.h
const CONTROL = "/dev/mapper/control";
const HEADER_SIZE = 312;
const TARGET_SIZE = 40;
const DM_DEV_CREATE = 0xc138_fd03;
const DM_DEV_REMOVE = 0xc138_fd04;
const DM_DEV_SUSPEND = 0xc138_fd06;
const DM_TABLE_LOAD = 0xc138_fd09;
const READONLY_FLAG = 1 << 0;
/** The kernel wipes its copy of the parameters. */
const SECURE_DATA_FLAG = 1 << 15;
const NAME_MAX = 127;
const PARAMETERS_MAX = 4096;
/** New numbers of a 20-bit minor, high bits apart (linux/kdev_t.h, new_encode_dev). */
const minorOf = (device: bigint) => Number((device & 0xffn) | ((device >> 12n) & 0xfff00n));

const REMOVE_TRIES = 40;
const REMOVE_PAUSE_MS = 25;

/** One stretch of a mapped device, in sectors of 512 bytes (Documentation/admin-guide/device-mapper/). */
export interface MapperTarget {
  readonly start: bigint;
  readonly length: bigint;
  /** "verity", "crypt", "linear". */
  readonly type: string;
  readonly parameters: string;
}

/** struct dm_ioctl; `size` is that of the whole message. */
function header(name: string, size: number, flags: number, targets = 0): Buffer {
  const bytes = Buffer.alloc(HEADER_SIZE);
  bytes.writeUInt32LE(4, 0);
  bytes.writeUInt32LE(size, 12);
  bytes.writeUInt32LE(HEADER_SIZE, 16);
  bytes.writeUInt32LE(targets, 20);
  bytes.writeUInt32LE(flags, 28);
  bytes.write(name, 48, NAME_MAX, "latin1");
  return bytes;
}

/** The message of DM_TABLE_LOAD: struct dm_ioctl, then each struct dm_target_spec with its parameters. */
export function encodeTargets(name: string, flags: number, targets: readonly MapperTarget[]): Buffer {
  const encoded = targets.map(({ start, length, type, parameters }) => {
    if (parameters.length > PARAMETERS_MAX || parameters.includes("\0")) {
      throw new HakoError("INVALID_ARGUMENT", `Cannot map device "${name}": its parameters are too long`);
    }
    // Each target begins at a multiple of 8 bytes.
    const bytes = Buffer.alloc((TARGET_SIZE + parameters.length + 8) & ~7);
    bytes.writeBigUInt64LE(start, 0);
    bytes.writeBigUInt64LE(length, 8);
    bytes.writeUInt32LE(bytes.length, 20);
    bytes.write(type, 24, 15, "latin1");
    bytes.write(parameters, TARGET_SIZE, "latin1");
    return bytes;
  });
  const size = HEADER_SIZE + encoded.reduce((sum, bytes) => sum + bytes.length, 0);
  return Buffer.concat([header(name, size, flags, targets.length), ...encoded], size);
}

async function control(request: number, message: Buffer, action: string): Promise<void> {
  using device = openControl(action);
  check(await syscallBlocking(SYS.ioctl, device.number, request, message), action);
}

function openControl(action: string) {
  try {
    return openFd(CONTROL, O.RDWR);
  } catch (cause) {
    throw new HakoError("FAILED_PRECONDITION", `${action}: this kernel has no device mapper`, { cause });
  }
}

/** A block device that the kernel's device mapper puts over others; it goes with `detach`. */
export class MappedDevice {
  /** Its node, which devtmpfs makes; there is no udev that would make /dev/mapper/NAME. */
  readonly path: string;
  readonly #name: string;

  private constructor(name: string, path: string) {
    this.#name = name;
    this.path = path;
  }

  /**
   * Makes a device of this name, which must be free. `secret` when the parameters hold a key. Throws
   * FAILED_PRECONDITION for a kernel without the device mapper, INVALID_ARGUMENT when it refuses the table.
   */
  static async create(
    name: string,
    targets: readonly MapperTarget[],
    options: { readonly readOnly: boolean; readonly secret?: boolean },
  ): Promise<MappedDevice> {
    const action = `Cannot map device "${name}"`;
    if (!/^[A-Za-z0-9_.-]{1,120}$/.test(name))
      throw new HakoError("INVALID_ARGUMENT", `${action}: a bad name`);
    const flags = (options.readOnly ? READONLY_FLAG : 0) | (options.secret ? SECURE_DATA_FLAG : 0);
    const created = header(name, HEADER_SIZE, flags);
    await control(DM_DEV_CREATE, created, action);
    const device = new MappedDevice(name, `/dev/dm-${minorOf(created.readBigUInt64LE(40))}`);
    const table = encodeTargets(name, flags, targets);
    try {
      await control(DM_TABLE_LOAD, table, action);
      await control(DM_DEV_SUSPEND, header(name, HEADER_SIZE, 0), action);
      return device;
    } catch (error) {
      await device.detach();
      throw error;
    } finally {
      table.fill(0);
    }
  }

  /** Takes the device away; its last users may still be on their way out. */
  async detach(): Promise<void> {
    const action = `Cannot remove device "${this.#name}"`;
    using device = openControl(action);
    for (let tries = 0; ; tries++) {
      const message = header(this.#name, HEADER_SIZE, 0);
      const result = await syscallBlocking(SYS.ioctl, device.number, DM_DEV_REMOVE, message);
      if (result === -E.ENXIO) return;
      if (result !== -E.EBUSY || tries >= REMOVE_TRIES) {
        check(result, action);
        return;
      }
      await Bun.sleep(REMOVE_PAUSE_MS);
    }
  }
}

/** _IOR(0x12, 114, size_t) of linux/fs.h. */
const BLKGETSIZE64 = 0x8008_1272;

/** Bytes that a block device holds. */
export function blockDeviceSize(path: string): bigint {
  using file = openFd(path, O.RDONLY);
  const size = new BigUint64Array(1);
  check(syscall(SYS.ioctl, file.number, BLKGETSIZE64, size), `Cannot read the size of "${path}"`);
  return size[0] ?? 0n;
}
