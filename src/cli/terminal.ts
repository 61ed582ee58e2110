import type { Process } from "#runtime/process.ts";
import { check } from "#sys/errno.ts";
import { SYS, syscall } from "#sys/syscall.ts";

// asm-generic/ioctls.h
const TCGETS = 0x5401;
const TCSETS = 0x5402;
const TIOCGWINSZ = 0x5413;

/** struct termios of asm-generic/termbits.h: four u32 of flags, line discipline, 19 control characters. */
const TERMIOS_SIZE = 36;
const INPUT_FLAGS = 0;
const OUTPUT_FLAGS = 4;
const CONTROL_FLAGS = 8;
const LOCAL_FLAGS = 12;
const CONTROL_CHARACTERS = 17;
const VTIME = 5;
const VMIN = 6;

// asm-generic/termbits.h and termbits-common.h, the flags that cfmakeraw(3) clears
const IGNBRK = 0o1;
const BRKINT = 0o2;
const PARMRK = 0o10;
const ISTRIP = 0o40;
const INLCR = 0o100;
const IGNCR = 0o200;
const ICRNL = 0o400;
const IXON = 0o2000;
const OPOST = 0o1;
const CSIZE = 0o60;
const CS8 = 0o60;
const PARENB = 0o400;
const ISIG = 0o1;
const ICANON = 0o2;
const ECHO = 0o10;
const ECHONL = 0o100;
const IEXTEN = 0o100000;

export interface TerminalSize {
  readonly columns: number;
  readonly rows: number;
}

/** A terminal on one of our own descriptors. */
export class Terminal {
  readonly #fd: number;

  private constructor(fd: number) {
    this.#fd = fd;
  }

  /** Undefined when the descriptor is no terminal. */
  static find(fd: number): Terminal | undefined {
    return syscall(SYS.ioctl, fd, TCGETS, new Uint8Array(TERMIOS_SIZE)) === 0 ? new Terminal(fd) : undefined;
  }

  /** Undefined when it has none, as some serial lines. */
  size(): TerminalSize | undefined {
    const size = new Uint16Array(4);
    if (syscall(SYS.ioctl, this.#fd, TIOCGWINSZ, size) < 0) return undefined;
    const [rows = 0, columns = 0] = size;
    return rows > 0 && columns > 0 ? { columns, rows } : undefined;
  }

  /**
   * Hands every key to the program, control characters too, until disposed. However this process ends, short of
   * SIGKILL, the terminal is set back.
   */
  makeRaw(): Disposable {
    const saved = new Uint8Array(TERMIOS_SIZE);
    check(syscall(SYS.ioctl, this.#fd, TCGETS, saved), "Cannot read the terminal's settings");
    check(syscall(SYS.ioctl, this.#fd, TCSETS, rawSettings(saved)), "Cannot change the terminal's settings");
    const restore = () => {
      process.off("exit", restore);
      syscall(SYS.ioctl, this.#fd, TCSETS, saved);
    };
    process.on("exit", restore);
    return { [Symbol.dispose]: restore };
  }
}

function rawSettings(saved: Uint8Array): Uint8Array {
  const raw = saved.slice();
  const view = new DataView(raw.buffer);
  const clear = (offset: number, flags: number) =>
    view.setUint32(offset, view.getUint32(offset, true) & ~flags, true);
  clear(INPUT_FLAGS, IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
  clear(OUTPUT_FLAGS, OPOST);
  clear(LOCAL_FLAGS, ECHO | ECHONL | ICANON | ISIG | IEXTEN);
  clear(CONTROL_FLAGS, CSIZE | PARENB);
  view.setUint32(CONTROL_FLAGS, view.getUint32(CONTROL_FLAGS, true) | CS8, true);
  raw[CONTROL_CHARACTERS + VTIME] = 0;
  raw[CONTROL_CHARACTERS + VMIN] = 1;
  return raw;
}

/** Passes changes of the window's size on until disposed. */
export function followSize(terminal: Terminal, target: Pick<Process, "resize">): Disposable {
  const onResize = () => {
    const size = terminal.size();
    // A process that has ended has no terminal to change.
    if (size) target.resize(size.columns, size.rows).catch(() => {});
  };
  process.on("SIGWINCH", onResize);
  return { [Symbol.dispose]: () => process.off("SIGWINCH", onResize) };
}
