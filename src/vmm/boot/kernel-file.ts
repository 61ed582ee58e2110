import { fstatSync, readSync } from "node:fs";
import { HakoError } from "#base/error.ts";

/** A guest kernel that is open; its bytes are not trusted. */
export class KernelFile {
  readonly fd: number;
  readonly size: number;

  constructor(fd: number) {
    this.fd = fd;
    this.size = fstatSync(fd).size;
  }

  /** `length` bytes at `offset`. Throws FAILED_PRECONDITION when the file ends before. */
  read(offset: number, length: number, what: string): Buffer {
    const bytes = Buffer.alloc(length);
    this.expect(offset, length, what);
    for (let done = 0; done < length; ) {
      const count = readSync(this.fd, bytes, done, length - done, offset + done);
      if (count === 0) throw badKernel(`it was truncated while it was read`);
      done += count;
    }
    return bytes;
  }

  /** Throws FAILED_PRECONDITION unless the file has `length` bytes at `offset`. */
  expect(offset: number, length: number, what: string): void {
    if (Number.isSafeInteger(offset) && offset + length <= this.size) return;
    throw badKernel(`it is truncated: ${what} needs ${offset + length} bytes, the file has ${this.size}`);
  }
}

export function badKernel(why: string): HakoError {
  return new HakoError("FAILED_PRECONDITION", `Cannot boot this kernel: ${why}`);
}
