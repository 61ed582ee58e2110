import { closeSync, ftruncateSync, openSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { QmpClient } from "#hypervisor/qemu/qmp.ts";
import { check } from "#sys/errno.ts";
import { unixConnect } from "#sys/socket.ts";
import { cstr, SYS, syscall } from "#sys/syscall.ts";
import { cachedFixture } from "./images.ts";
import { runCommand } from "./measure.ts";

const root = join(import.meta.dir, "../..");
const sources = join(root, "tests/fixtures/kernel-guest");

/** Where the kernel under test lies: vmlinux, bzImage, config, version. */
export const kernelDirectory = process.env.HAKO_KERNEL_DIR ?? join(root, "dist/kernel");

/** An initramfs whose init is tests/fixtures/kernel-guest; built once for each version of the sources. */
export async function kernelGuestInitramfs(): Promise<string> {
  const files = readdirSync(sources).sort();
  const texts = await Promise.all(files.map((file) => Bun.file(join(sources, file)).text()));
  const directory = await cachedFixture(
    `kernel-guest-${Bun.hash(texts.join()).toString(16)}`,
    async (work) => {
      const units = files.filter((file) => file.endsWith(".c")).map((file) => join(sources, file));
      await runCommand([
        "musl-gcc",
        ...["-static", "-s", "-std=gnu11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror"],
        ...["-idirafter", "/usr/include", "-idirafter", "/usr/include/x86_64-linux-gnu"],
        ...["-o", join(work, "init"), ...units],
      ]);
      await runCommand(["sh", "-c", `cd "${work}" && echo init | cpio -o -H newc --quiet > initramfs`]);
    },
  );
  return join(directory, "initramfs");
}

/** Images for the guest's disks; sizes are multiples of 2 MiB, as persistent memory needs them. */
export interface GuestDisks {
  /** EROFS image whose file contents lie on `blob`. */
  readonly erofs: string;
  readonly blob: string;
  /** Empty ext4 file system. Mounted writable: a machine gets a copy. */
  readonly ext4: string;
  /** FNV-1a of the file `file` in the EROFS image, as the guest tells it. */
  readonly fileHash: string;
}

/** Made by mkfs.erofs and mkfs.ext4, once. The file has a user attribute and a file capability. Needs root. */
export async function guestDisks(): Promise<GuestDisks> {
  const content = patternBytes(3 * 1024 * 1024 + 123);
  const directory = await cachedFixture("kernel-guest-disks-1", async (work) => {
    const tree = join(work, "tree");
    await runCommand(["mkdir", tree]);
    writeFileSync(join(tree, "file"), content);
    setAttribute(join(tree, "file"), "user.test", Buffer.from("value"));
    setAttribute(join(tree, "file"), "security.capability", Buffer.from(CAP_NET_RAW, "hex"));
    await runCommand([
      "mkfs.erofs",
      "--chunksize=4096",
      `--blobdev=${join(work, "blob")}`,
      join(work, "erofs"),
      tree,
    ]);
    await runCommand(["truncate", "--size=16M", join(work, "ext4")]);
    await runCommand(["mkfs.ext4", "-q", join(work, "ext4")]);
    for (const image of ["erofs", "blob"]) padImage(join(work, image));
  });
  const file = (name: string) => join(directory, name);
  return { erofs: file("erofs"), blob: file("blob"), ext4: file("ext4"), fileHash: fnv1a(content) };
}

/** vfs_cap_data of linux/capability.h, revision 2: permitted and effective CAP_NET_RAW. */
const CAP_NET_RAW = "0100000200200000000000000000000000000000";

function setAttribute(path: string, name: string, value: Uint8Array): void {
  check(syscall(SYS.lsetxattr, cstr(path), cstr(name), value, value.length, 0), `Cannot set "${name}"`);
}

function padImage(path: string): void {
  const file = openSync(path, "r+");
  ftruncateSync(file, Math.ceil(statSync(path).size / 2 ** 21) * 2 ** 21);
  closeSync(file);
}

/** Bytes that repeat nowhere within a block and are the same in every run. */
function patternBytes(length: number): Uint8Array {
  const words = new Uint32Array(Math.ceil(length / 4));
  let state = 1;
  for (let index = 0; index < words.length; index++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    words[index] = state;
  }
  return new Uint8Array(words.buffer, 0, length);
}

function fnv1a(bytes: Uint8Array): string {
  let high = 0xcbf29ce4;
  let low = 0x84222325;
  for (const byte of bytes) {
    low = (low ^ byte) >>> 0;
    // Times 0x100000001b3 in 64 bits, as 32-bit halves.
    const product = low * 0x1b3;
    high = (Math.imul(high, 0x1b3) + Math.floor(product / 2 ** 32) + (low << 8)) >>> 0;
    low = product >>> 0;
  }
  return high.toString(16).padStart(8, "0") + low.toString(16).padStart(8, "0");
}

export interface GuestBoot {
  /** Arguments of QEMU beyond those that every boot has. */
  readonly args: readonly string[];
  readonly kernel: string;
  readonly initramfs: string;
  readonly params: string;
  /** Directory for the control socket. */
  readonly directory: string;
  /** Called for each `@ request` of the guest. */
  readonly onRequest?: (request: string, qmp: QmpClient) => Promise<void>;
}

/** What a guest said until its machine ended. */
export interface GuestReport {
  /** Failed checks by group, as "name: what was seen". */
  readonly failures: ReadonlyMap<string, readonly string[]>;
  /** How many checks a group has, and how many passed. */
  readonly counts: ReadonlyMap<string, { planned: number; passed: number }>;
  readonly facts: ReadonlyMap<string, string>;
  /** True if the guest came to its end, and QEMU ended with status 0 after it. */
  readonly finished: boolean;
  readonly console: string;
}

const BOOT_LIMIT_MS = 170_000;

/** Boots a machine under TCG, answers its requests and waits for its end; a machine that hangs is killed. */
export async function bootGuest(boot: GuestBoot): Promise<GuestReport> {
  const socket = join(boot.directory, "qmp.sock");
  const common = ["-accel", "tcg", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"];
  const control = ["-serial", "stdio", "-qmp", `unix:${socket},server=on,wait=off`];
  const payload = ["-kernel", boot.kernel, "-initrd", boot.initramfs, "-append", boot.params];
  const child = Bun.spawn(["qemu-system-x86_64", ...common, ...control, ...payload, ...boot.args], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    timeout: BOOT_LIMIT_MS,
    killSignal: "SIGKILL",
  });
  const errors = child.stderr.text();
  const reader = new ReportReader(socket, boot.onRequest);
  for await (const chunk of child.stdout) await reader.take(chunk);
  const status = await child.exited;
  return reader.finish(status === 0, await errors);
}

class ReportReader {
  readonly #decoder = new TextDecoder();
  readonly #socket: string;
  readonly #onRequest: GuestBoot["onRequest"];
  readonly #failures = new Map<string, string[]>();
  readonly #counts = new Map<string, { planned: number; passed: number }>();
  readonly #facts = new Map<string, string>();
  #qmp: QmpClient | undefined;
  #group = "none";
  #console = "";
  #read = 0;
  #done = false;

  constructor(socket: string, onRequest: GuestBoot["onRequest"]) {
    this.#socket = socket;
    this.#onRequest = onRequest;
  }

  async take(chunk: Uint8Array): Promise<void> {
    this.#console += this.#decoder.decode(chunk, { stream: true });
    for (let end = this.#next(); end >= 0; end = this.#next()) {
      const line = this.#console.slice(this.#read, end).trimEnd();
      this.#read = end + 1;
      const [, kind, text] = /@ (\w+) (.*)$/.exec(line) ?? [];
      if (kind !== undefined && text !== undefined) await this.#tell(kind, text);
    }
  }

  finish(endedWell: boolean, errors: string): GuestReport {
    this.#qmp?.close();
    return {
      failures: this.#failures,
      counts: this.#counts,
      facts: this.#facts,
      finished: this.#done && endedWell,
      console: this.#console + errors,
    };
  }

  #next(): number {
    return this.#console.indexOf("\n", this.#read);
  }

  async #tell(kind: string, text: string): Promise<void> {
    if (kind === "group") return this.#begin(text);
    if (kind === "done") this.#done = true;
    if (kind === "request") return this.#request(text);
    const count = this.#counts.get(this.#group);
    if (kind === "ok" && count) count.passed += 1;
    if (kind === "fail") this.#fail(text);
    const space = text.indexOf(" ");
    if (kind === "fact") this.#facts.set(text.slice(0, space), text.slice(space + 1).trim());
  }

  #begin(text: string): void {
    const [name = "", planned] = text.split(" ");
    this.#group = name;
    this.#counts.set(name, { planned: Number(planned), passed: 0 });
  }

  #fail(text: string): void {
    const list = this.#failures.get(this.#group) ?? [];
    list.push(text);
    this.#failures.set(this.#group, list);
  }

  async #request(text: string): Promise<void> {
    try {
      this.#qmp ??= await this.#connect();
      await this.#onRequest?.(text, this.#qmp);
    } catch (error) {
      this.#fail(`request "${text}": ${error}`);
    }
  }

  async #connect(): Promise<QmpClient> {
    const qmp = new QmpClient(await unixConnect(this.#socket));
    await qmp.negotiate();
    return qmp;
  }
}
