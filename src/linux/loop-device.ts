import { HakoError } from "#base/error.ts";
import { check, E } from "#sys/errno.ts";
import { type Fd, O, openFd } from "#sys/fd.ts";
import { SYS, syscall } from "#sys/syscall.ts";

// linux/loop.h
const LOOP_CTL_GET_FREE = 0x4c82;
const LOOP_CONFIGURE = 0x4c0a;
const LOOP_CLR_FD = 0x4c01;
const LO_FLAGS_READ_ONLY = 1;
const LO_FLAGS_AUTOCLEAR = 4;
/** struct loop_config: u32 fd, u32 block size, struct loop_info64 (232 bytes), u64 reserved[8]. */
const CONFIG_LENGTH = 304;
const FLAGS_OFFSET = 60;
/** Somebody else may take the free device that we were told of. */
const TRIES = 20;

/**
 * A file as a block device. The kernel frees the device with its last user, so that nothing stays when we are killed;
 * disposing gives up our own use of it.
 */
export class LoopDevice implements Disposable {
  /** `/dev/loop7` */
  readonly path: string;
  readonly #device: Fd;

  private constructor(path: string, device: Fd) {
    this.path = path;
    this.#device = device;
  }

  /** `fileFd` stays the caller's. NOT_FOUND where the kernel has no loop devices. */
  static attach(fileFd: number, options: { readonly readOnly: boolean }): LoopDevice {
    using control = openFd("/dev/loop-control", O.RDWR);
    for (let tries = 0; tries < TRIES; tries++) {
      const number = check(
        syscall(SYS.ioctl, control.number, LOOP_CTL_GET_FREE, 0),
        "Cannot get a loop device",
      );
      const path = `/dev/loop${number}`;
      const device = openFd(path, options.readOnly ? O.RDONLY : O.RDWR);
      const config = Buffer.alloc(CONFIG_LENGTH);
      config.writeUInt32LE(fileFd, 0);
      config.writeUInt32LE(LO_FLAGS_AUTOCLEAR | (options.readOnly ? LO_FLAGS_READ_ONLY : 0), FLAGS_OFFSET);
      const result = syscall(SYS.ioctl, device.number, LOOP_CONFIGURE, config);
      if (result >= 0) return new LoopDevice(path, device);
      device.close();
      if (result !== -E.EBUSY) check(result, `Cannot attach a file to "${path}"`);
    }
    throw new HakoError("UNAVAILABLE", "Cannot get a loop device: others take each free one first");
  }

  [Symbol.dispose](): void {
    // Whoever has it mounted keeps it; this only says that we need it no longer.
    syscall(SYS.ioctl, this.#device.number, LOOP_CLR_FD, 0);
    this.#device.close();
  }
}
