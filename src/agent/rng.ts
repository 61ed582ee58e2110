import { HakoError } from "#base/error.ts";
import { check } from "#sys/errno.ts";
import { O, openFd } from "#sys/fd.ts";
import { SYS, syscall } from "#sys/syscall.ts";

// _IOW('R', 0x03, int[2]) and _IO('R', 0x07) (linux/random.h)
const RNDADDENTROPY = 0x40085203;
const RNDRESEEDCRNG = 0x5207;
/** Far more than the kernel's pool holds. */
const ENTROPY_MAX = 64 * 1024;

/**
 * Mixes what the host sends into the kernel's entropy pool, counted as fully random, and reseeds the generator:
 * a clone of a template must not repeat the numbers of its siblings.
 */
export function reseedRandom(data: Uint8Array, path = "/dev/random"): void {
  if (data.length === 0 || data.length > ENTROPY_MAX) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Cannot use ${data.length} bytes of entropy: send 1 to ${ENTROPY_MAX}`,
    );
  }
  // struct rand_pool_info: int entropy_count (bits), int buf_size (bytes), then the buffer.
  const info = Buffer.alloc(8 + data.length);
  info.writeInt32LE(data.length * 8, 0);
  info.writeInt32LE(data.length, 4);
  info.set(data, 8);
  using device = openFd(path, O.WRONLY);
  check(syscall(SYS.ioctl, device.number, RNDADDENTROPY, info), "Cannot add entropy");
  check(syscall(SYS.ioctl, device.number, RNDRESEEDCRNG, 0), "Cannot reseed the random number generator");
}
