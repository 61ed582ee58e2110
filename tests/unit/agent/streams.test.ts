import { describe, expect, test } from "bun:test";
import { InputStream } from "#agent/input-stream.ts";
import { OutputStream } from "#agent/output-stream.ts";
import { makeStandardPipes } from "#agent/standard-streams.ts";
import type { HakoError } from "#base/error.ts";
import { E } from "#sys/errno.ts";
import { Fd, pipe, readFd, setNonBlocking, writeAll } from "#sys/fd.ts";

function codeOf(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => "OK",
    (error: HakoError) => error.code,
  );
}

function text(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString();
}

function output() {
  const exit = new AbortController();
  const { read, write } = pipe();
  return { stream: new OutputStream(read, exit.signal), write, exit };
}

describe("OutputStream", () => {
  test("waits for bytes, hands out as many as asked for, and ends for ever", async () => {
    const { stream, write } = output();
    const waiting = stream.read(3);
    writeAll(write.number, Buffer.from("abcde"), "pipe");
    expect(text(await waiting)).toBe("abc");
    write.close();
    expect(text(await stream.read(100))).toBe("de");
    expect((await stream.read(100)).length).toBe(0);
    expect((await stream.read(100)).length).toBe(0);
  });

  test("readers take turns in their order", async () => {
    const { stream, write } = output();
    const reads = [stream.read(1), stream.read(1), stream.read(1)];
    writeAll(write.number, Buffer.from("abc"), "pipe");
    expect((await Promise.all(reads)).map(text)).toEqual(["a", "b", "c"]);
    stream.close();
    write.close();
  });

  test("a reader that is cancelled, or waits for its turn, takes nothing", async () => {
    const { stream, write } = output();
    const stop = new AbortController();
    const first = codeOf(stream.read(10, stop.signal));
    const second = codeOf(stream.read(10, stop.signal));
    stop.abort();
    expect([await first, await second]).toEqual(["CANCELLED", "CANCELLED"]);
    writeAll(write.number, Buffer.from("kept"), "pipe");
    expect(text(await stream.read(10))).toBe("kept");
    stream.close();
    write.close();
  });

  test("ends after its process although somebody holds the pipe, but not before what is in it", async () => {
    const { stream, write, exit } = output();
    writeAll(write.number, Buffer.from("last words"), "pipe");
    exit.abort();
    expect(text(await stream.read(100))).toBe("last words");
    expect((await stream.read(100)).length).toBe(0);
    write.close();
  });

  test("an exit while somebody waits is noticed; late bytes of a child still arrive", async () => {
    const { stream, write, exit } = output();
    const waiting = stream.read(100);
    exit.abort();
    setTimeout(() => writeAll(write.number, Buffer.from("late"), "pipe"), 10);
    expect(text(await waiting)).toBe("late");
    stream.close();
    write.close();
  });

  test("closing it ends those who wait", async () => {
    const { stream, write } = output();
    const waiting = stream.read(100);
    await Bun.sleep(1);
    stream.close();
    expect((await waiting).length).toBe(0);
    write.close();
  });
});

function input(keepOpen = false) {
  const exit = new AbortController();
  const { read, write } = pipe();
  setNonBlocking(read.number);
  return { stream: new InputStream(write, exit.signal, { keepOpen }), read, exit };
}

/** Takes bytes out of a pipe, turn by turn, until there were so many. */
async function drain(fd: Fd, count: number): Promise<number> {
  const buffer = new Uint8Array(1 << 20);
  let total = 0;
  while (total < count) {
    const length = readFd(fd.number, buffer);
    if (length === 0) break;
    if (length > 0) total += length;
    await Bun.sleep(0);
  }
  return total;
}

describe("InputStream", () => {
  test("a write beyond what the pipe holds waits for the reader, later ones for it", async () => {
    const { stream, read } = input();
    const big = stream.write(new Uint8Array(200_000));
    const small = stream.write(Buffer.from("end"));
    const finished = stream.finish();
    expect(await drain(read, 200_003)).toBe(200_003);
    await Promise.all([big, small, finished]);
    expect(readFd(read.number, new Uint8Array(1))).toBe(0);
    expect(await codeOf(stream.write(Buffer.from("x")))).toBe("FAILED_PRECONDITION");
    read.close();
  });

  test("a writer is let go when the process ends or stops reading, and on its signal", async () => {
    const dead = input();
    const blocked = codeOf(dead.stream.write(new Uint8Array(200_000)));
    dead.exit.abort();
    expect(await blocked).toBe("FAILED_PRECONDITION");
    const deaf = input();
    deaf.read.close();
    expect(await codeOf(deaf.stream.write(Buffer.from("x")))).toBe("FAILED_PRECONDITION");
    const slow = input();
    const stop = new AbortController();
    const cancelled = codeOf(slow.stream.write(new Uint8Array(200_000), stop.signal));
    stop.abort();
    expect(await cancelled).toBe("CANCELLED");
    for (const { stream, read } of [dead, deaf, slow]) {
      stream.close();
      read.close();
    }
  });

  test("a terminal's descriptor stays open when its input ends", async () => {
    const { stream, read } = input(true);
    await stream.finish();
    expect(await codeOf(stream.write(Buffer.from("x")))).toBe("FAILED_PRECONDITION");
    // The end of a pipe without a writer would read as 0.
    expect(readFd(read.number, new Uint8Array(1))).toBe(-E.EAGAIN);
    read.close();
  });
});

test("makeStandardPipes() closes what nobody took, and sets the size", () => {
  let kept: Fd;
  let closed: number;
  {
    using pipes = makeStandardPipes(1 << 18);
    kept = new Fd(pipes.agent.stdin.release());
    closed = pipes.process.stdin.number;
  }
  expect(readFd(closed, new Uint8Array(1))).toBe(-E.EBADF);
  expect(kept.number).toBeGreaterThan(2);
  kept.close();
});
