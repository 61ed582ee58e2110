import { HakoError } from "#base/error.ts";
import { type Assets, EXECUTABLE_PATH } from "#resource/asset.ts";
import type { DiskFile } from "#resource/storage.ts";
import { type Fd, O, openFd } from "#sys/fd.ts";

/** Serials by which hako-init finds the guest's root file system and the executable behind it. */
const GUEST_IMAGE_SERIAL = "hako-guest";
const EXECUTABLE_SERIAL = "hako-exe";

/** What every machine boots from, open. The monitor duplicates what it keeps, so these are closed when it runs. */
export interface MachineFiles extends Disposable {
  readonly kernelFd: number;
  readonly initrdFd: number;
  readonly disks: readonly DiskFile[];
}

/** `kernel`: path of another guest kernel, or empty. */
export function openMachineFiles(assets: Assets, kernel: string): MachineFiles {
  using stack = new DisposableStack();
  const open = (path: string) => stack.use(openFd(path, O.RDONLY)).number;
  const kernelFd = stack.use(openKernel(kernel || assets.kernelPath)).number;
  const initrdFd = open(assets.initrdPath);
  const disks = [
    { serial: GUEST_IMAGE_SERIAL, fd: open(assets.guestImagePath), inPlace: true },
    { serial: EXECUTABLE_SERIAL, fd: open(EXECUTABLE_PATH), inPlace: true },
  ];
  const held = stack.move();
  return { kernelFd, initrdFd, disks, [Symbol.dispose]: () => held.dispose() };
}

function openKernel(path: string): Fd {
  try {
    return openFd(path, O.RDONLY);
  } catch (cause) {
    const { code } = HakoError.from(cause);
    throw new HakoError(code, `Cannot boot the guest kernel "${path}"`, { cause });
  }
}
