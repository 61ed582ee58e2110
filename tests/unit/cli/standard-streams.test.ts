import { describe, expect, test } from "bun:test";
import { closeSync, mkdtempSync, openSync, readFileSync, readSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { StandardInput } from "#cli/standard-input.ts";
import { isReaderGone, StandardOutput } from "#cli/standard-output.ts";
import { O, pipe, readFd, setNonBlocking, writeAll } from "#sys/fd.ts";
import { socketpair } from "#sys/socket.ts";
import { SYS, syscall } from "#sys/syscall.ts";

const F_GETFL = 3;
const flagsOf = (fd: number) => syscall(SYS.fcntl, fd, F_GETFL, 0);
const never = new AbortController().signal;

describe("StandardOutput", () => {
  test("waits for a slow reader without blocking, and leaves the shared flags alone", async () => {
    const { read, write } = pipe();
    const output = new StandardOutput(write.number);
    const bytes = crypto.getRandomValues(new Uint8Array(300_000));
    let done = false;
    const writing = output.write(bytes).then(() => {
      done = true;
    });
    await Bun.sleep(10);
    expect(done).toBe(false);
    expect(flagsOf(write.number) & O.NONBLOCK).toBe(0);
    const received = Buffer.alloc(bytes.length);
    setNonBlocking(read.number);
    for (let filled = 0; filled < received.length; ) {
      const length = readFd(read.number, received.subarray(filled, filled + 10_000));
      if (length > 0) filled += length;
      else await Bun.sleep(1);
    }
    await writing;
    expect(received.equals(bytes)).toBe(true);
    output[Symbol.dispose]();
    write.close();
    expect(readFd(read.number, new Uint8Array(1))).toBe(0);
    read.close();
  });

  test("tells when nobody reads any more", async () => {
    const { read, write } = pipe();
    using output = new StandardOutput(write.number);
    read.close();
    const error = await output.write(Buffer.from("x")).catch((caught: unknown) => caught);
    expect(isReaderGone(error)).toBe(true);
    expect(isReaderGone(new Error("EPIPE"))).toBe(false);
    write.close();
  });

  test("writes to sockets and files, a file at the position that others left it at", async () => {
    const [ours, theirs] = socketpair("stream");
    using toSocket = new StandardOutput(ours.number);
    await toSocket.write(Buffer.from("over a socket"));
    const buffer = Buffer.alloc(100);
    expect(buffer.toString("utf8", 0, readFd(theirs.number, buffer))).toBe("over a socket");
    ours.close();
    theirs.close();

    const dir = mkdtempSync(join(tmpdir(), "hako-output-"));
    const path = join(dir, "file");
    const fd = openSync(path, "w");
    using toFile = new StandardOutput(fd);
    await toFile.write(Buffer.from("first "));
    writeAll(fd, Buffer.from("between "), "file");
    await toFile.write(Buffer.from("last"));
    closeSync(fd);
    expect(readFileSync(path, "utf8")).toBe("first between last");
    rmSync(dir, { recursive: true });
  });
});

describe("StandardInput", () => {
  test("reads a pipe to its end, waiting for what comes late", async () => {
    const { read, write } = pipe();
    using input = new StandardInput(read.number);
    setTimeout(() => {
      writeAll(write.number, Buffer.from("late"), "pipe");
      write.close();
    }, 10);
    expect(Buffer.from(await input.read(never)).toString()).toBe("late");
    expect(await input.read(never)).toHaveLength(0);
    expect(flagsOf(read.number) & O.NONBLOCK).toBe(0);
    read.close();
  });

  test("goes on in a file where others stopped", async () => {
    const dir = mkdtempSync(join(tmpdir(), "hako-input-"));
    const path = join(dir, "file");
    writeFileSync(path, "first line\nthe rest");
    const fd = openSync(path, "r");
    readSync(fd, new Uint8Array(11), 0, 11, null);
    using input = new StandardInput(fd);
    expect(Buffer.from(await input.read(never)).toString()).toBe("the rest");
    expect(await input.read(never)).toHaveLength(0);
    closeSync(fd);
    rmSync(dir, { recursive: true });
  });

  test("a wait can be given up", async () => {
    const { read, write } = pipe();
    using input = new StandardInput(read.number);
    await expect(input.read(AbortSignal.timeout(10))).rejects.toThrow("cancelled");
    read.close();
    write.close();
  });
});
