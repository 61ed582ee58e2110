import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { withDeadline } from "#base/deadline.ts";
import { type ByteStream, socketStream } from "#sys/byte-stream.ts";
import type { Fd } from "#sys/fd.ts";
import { hybridVsockConnect } from "#sys/hybrid-vsock.ts";
import { unixConnect, vsockConnect } from "#sys/socket.ts";

const root = join(import.meta.dir, "../..");
const sources = ["tests/fixtures/contract-guest.c", "native/init/hotplug.c"].map((file) => join(root, file));

/** The guest kernel of the build. */
export const kernelPath = join(root, "dist/kernel/vmlinux");

/** An initramfs whose init is tests/fixtures/contract-guest.c; built once for each version of the sources. */
export async function contractInitramfs(): Promise<string> {
  const digest = Bun.hash(Buffer.concat(sources.map((file) => readFileSync(file)))).toString(16);
  const directory = join(root, "dist/test");
  const path = join(directory, `contract-guest-${digest}.cpio`);
  if (existsSync(path)) return path;
  mkdirSync(directory, { recursive: true });
  const work = mkdtempSync(join(tmpdir(), "hako-contract-guest-"));
  try {
    await run(
      [
        "musl-gcc",
        ...["-static", "-s", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"],
        ...["-idirafter", "/usr/include", "-idirafter", "/usr/include/x86_64-linux-gnu"],
        ...["-o", join(work, "init"), ...sources],
      ],
      work,
    );
    await run(["sh", "-c", "echo init | cpio --create --format=newc --quiet > initramfs"], work);
    renameSync(join(work, "initramfs"), path);
  } finally {
    rmSync(work, { recursive: true });
  }
  return path;
}

async function run(command: string[], cwd: string): Promise<void> {
  const child = Bun.spawn(command, { cwd, stdio: ["ignore", "pipe", "pipe"] });
  const output = await child.stderr.text();
  if ((await child.exited) !== 0) throw new Error(`${command[0]} failed: ${output}`);
}

/** The contract guest's own words: "ok" and what follows it, or an error. */
export class GuestChannel implements Disposable {
  readonly #stream: ByteStream;
  readonly #waiting: ((line: string) => void)[] = [];
  #text = "";

  private constructor(stream: ByteStream) {
    this.#stream = stream;
    const decoder = new TextDecoder();
    stream.start({
      data: (chunk) => this.#take(decoder.decode(chunk, { stream: true })),
      close: () => {},
    });
  }

  static async overSerial(socketPath: string): Promise<GuestChannel> {
    return new GuestChannel(await socketStream(await unixConnect(socketPath)));
  }

  static overVsock(cid: number, port = 1024): Promise<GuestChannel> {
    return GuestChannel.#untilUp(() => vsockConnect(cid, port));
  }

  static overHybridVsock(path: string, port = 1024): Promise<GuestChannel> {
    return GuestChannel.#untilUp(() => hybridVsockConnect(path, port));
  }

  /** Tries until the guest listens. */
  static async #untilUp(connect: () => Promise<Fd>): Promise<GuestChannel> {
    const end = performance.now() + 200_000;
    for (;;) {
      try {
        return new GuestChannel(await socketStream(await connect()));
      } catch (error) {
        if (performance.now() > end) throw error;
        await Bun.sleep(20);
      }
    }
  }

  /** Sends one request and resolves to what follows "ok " in its answer; anything else throws. */
  async request(line: string, timeoutMs = 60_000): Promise<string> {
    const answer = await withDeadline(timeoutMs, `get an answer to "${line}"`, () => this.send(line));
    if (answer !== "ok" && !answer.startsWith("ok ")) throw new Error(`guest: "${line}": ${answer}`);
    return answer.slice(3);
  }

  /** Sends one request; resolves to its answer, whatever it is, whenever it comes. */
  send(line: string): Promise<string> {
    const { promise, resolve } = Promise.withResolvers<string>();
    this.#waiting.push(resolve);
    this.#stream.write(Buffer.from(`${line}\n`)).catch(() => {});
    return promise;
  }

  #take(text: string): void {
    this.#text += text;
    for (let end = this.#text.indexOf("\n"); end >= 0; end = this.#text.indexOf("\n")) {
      this.#waiting.shift()?.(this.#text.slice(0, end));
      this.#text = this.#text.slice(end + 1);
    }
  }

  [Symbol.dispose](): void {
    this.#stream.close();
  }
}

/** FNV-1a, 64 bits, as the guest computes it. */
export function fnv1a(bytes: Uint8Array): string {
  let high = 0xcbf29ce4;
  let low = 0x84222325;
  for (const byte of bytes) {
    low = (low ^ byte) >>> 0;
    // times 2^40 + 0x1b3, modulo 2^64, in halves of 32 bits
    const product = low * 0x1b3;
    high = (Math.imul(high, 0x1b3) + Math.floor(product / 2 ** 32) + (low << 8)) >>> 0;
    low = product >>> 0;
  }
  return high.toString(16).padStart(8, "0") + low.toString(16).padStart(8, "0");
}
