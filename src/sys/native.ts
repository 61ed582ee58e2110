import { CString, dlopen, FFIType, type Pointer, ptr } from "bun:ffi";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { findEmbedded } from "#base/embedded.ts";
import { HakoError } from "#base/error.ts";

/** Every foreign symbol that hako calls, with its C parameters; the contract is native/hako.h. */
const symbols = {
  // int64_t hako_syscall(int64_t nr, int64_t a0 … a5)
  hako_syscall: {
    args: [FFIType.i64, ...Array<FFIType.i64>(6).fill(FFIType.i64)],
    returns: FFIType.i64_fast,
  },
  // int32_t hako_poller_start(int32_t *epoll_fd, int32_t *notify_fd, int32_t *ack_fd)
  hako_poller_start: { args: [FFIType.ptr, FFIType.ptr, FFIType.ptr], returns: FFIType.i32 },
  // int32_t hako_tsc_sample(int64_t *tsc, int64_t *ns)
  hako_tsc_sample: { args: [FFIType.ptr, FFIType.ptr], returns: FFIType.i32 },
  // int64_t hako_spawn(const struct hako_spawn *spawn, int32_t *pidfd)
  hako_spawn: { args: [FFIType.ptr, FFIType.ptr], returns: FFIType.i64_fast },
} as const;

/** The C library's memfd_create, needed before libhako is there. */
const libcSymbols = {
  // int memfd_create(const char *name, unsigned int flags)
  memfd_create: { args: [FFIType.ptr, FFIType.u32], returns: FFIType.i32 },
  // ssize_t write(int fd, const void *buf, size_t count)
  write: { args: [FFIType.i32, FFIType.ptr, FFIType.u64], returns: FFIType.i64_fast },
} as const;

const MFD_CLOEXEC = 1;

/**
 * A path by which the dynamic loader can open libhako: the build output in a checkout; in the executable a
 * memfd, because the embedded file has no path of its own and no directory can be trusted to be writable.
 */
function libraryPath(): string {
  const embedded = findEmbedded("libhako.so");
  if (!embedded) return join(import.meta.dir, "../../dist/native/libhako.so");
  const bytes = readFileSync(embedded.path);
  const libc = dlopen("libc.so.6", libcSymbols).symbols;
  const fd = libc.memfd_create(ptr(Buffer.from("libhako\0")), MFD_CLOEXEC);
  if (fd < 0 || Number(libc.write(fd, ptr(bytes), bytes.length)) !== bytes.length) {
    throw new HakoError("INTERNAL", "Cannot place libhako into a memory file");
  }
  return `/proc/self/fd/${fd}`;
}

function open() {
  const path = libraryPath();
  try {
    return { path, symbols: dlopen(path, symbols).symbols };
  } catch (cause) {
    throw new HakoError(
      "INTERNAL",
      `Cannot load libhako from "${path}", build it with "bun build.ts native"`,
      {
        cause,
      },
    );
  }
}

let library: ReturnType<typeof open> | undefined;

/** libhako, loaded at first use (about 0.3 ms). */
export function native(): ReturnType<typeof open> {
  library ??= open();
  return library;
}

/** Address of a buffer's first byte, valid while the buffer is referenced. */
export function addressOf(buffer: NodeJS.TypedArray | DataView): Pointer {
  return ptr(buffer);
}

/** Copies a NUL-terminated string out of memory. */
export function readCString(address: Pointer): string {
  return new CString(address).toString();
}
