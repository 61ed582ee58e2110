/** The built-in monitor's devices under load, every byte checked. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { createHash, randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { BuiltinHypervisor } from "#hypervisor/builtin/hypervisor.ts";
import type { Machine } from "#hypervisor/hypervisor.ts";
import { O, openFd } from "#sys/fd.ts";
import { unixListen } from "#sys/socket.ts";
import { kernelPath } from "../../support/contract-guest.ts";
import { deviceGuestInitramfs, dialGuest, guestShell } from "../../support/device-guest.ts";
import { openTestTap } from "../../support/tap.ts";

const DISK_BYTES = 8 * 1024 * 1024;
/** What each of four readers takes in pieces of 4 KiB. */
const PIECES = 400;
const PIECE_BYTES = PIECES * 4096;
const HOST_ADDRESS = "10.77.0.1";
const GUEST_ADDRESS = "10.77.0.2";

const directory = mkdtempSync(join(tmpdir(), "hako-devices-"));
const socketPath = join(directory, "vsock");
const stack = new AsyncDisposableStack();
let machine: Machine;
const shell = (line: string) => guestShell(socketPath, line);
const sha256 = (data: Uint8Array) => createHash("sha256").update(data).digest("hex");

const source = randomBytes(DISK_BYTES);
/** No whole sectors, no whole pages. */
const mapped = randomBytes(5_000_001);

function makeFile(name: string, content: Uint8Array | number): string {
  const path = join(directory, name);
  writeFileSync(path, typeof content === "number" ? "" : content);
  if (typeof content === "number") truncateSync(path, content);
  return path;
}

async function host(...command: string[]): Promise<void> {
  const child = Bun.spawn(command, { stderr: "pipe" });
  if ((await child.exited) !== 0) throw new Error(`${command.join(" ")}: ${await child.stderr.text()}`);
}

beforeAll(async () => {
  const disk = (serial: string, path: string, readOnly: boolean, inPlace = false) => ({
    kind: "block" as const,
    id: serial,
    serial,
    fd: stack.use(openFd(path, readOnly ? O.RDONLY : O.RDWR)).number,
    readOnly,
    inPlace,
  });
  const tap = stack.use(openTestTap(2));
  machine = await new BuiltinHypervisor().create({
    id: "devices",
    runDir: directory,
    kernelFd: stack.use(openFd(kernelPath, O.RDONLY)).number,
    initrdFd: stack.use(openFd(await deviceGuestInitramfs(), O.RDONLY)).number,
    kernelParams: ["quiet"],
    vcpus: 2,
    memoryMib: 256,
    devices: [
      disk("source", makeFile("source", source), true),
      disk("target", makeFile("target", DISK_BYTES), false),
      disk("system", makeFile("system", DISK_BYTES), false),
      disk("mapped", makeFile("mapped", mapped), true, true),
      { kind: "network", id: "net", tapFds: tap.fds, macAddress: "02:00:00:00:77:02" },
    ],
    agent: {
      kind: "hybrid-vsock",
      cid: 3,
      path: socketPath,
      listenerFd: stack.use(unixListen(socketPath)).number,
    },
  });
  stack.defer(async () => {
    await machine.stop();
  });
  await host("ip", "addr", "add", `${HOST_ADDRESS}/24`, "dev", tap.interfaceName);
  await host("ip", "link", "set", tap.interfaceName, "up");
  await machine.start();
  for (let tries = 0; ; tries++) {
    try {
      await shell("true");
      break;
    } catch (error) {
      if (tries === 200) throw error;
      await Bun.sleep(100);
    }
  }
}, 80_000);

afterAll(async () => {
  await stack.disposeAsync();
  rmSync(directory, { recursive: true, force: true });
});

/** The guest's name of a disk. */
const find = (serial: string) =>
  `$(for d in /sys/block/vd*; do grep -qx ${serial} $d/serial && echo /dev/\${d##*/}; done)`;

test("a disk is read and another written, in large and in small pieces, and all is in the file", async () => {
  expect(await shell(`sha256sum < ${find("source")}`)).toBe(`${sha256(source)}  -`);
  await shell(`dd if=${find("source")} of=${find("target")} bs=1M conv=fsync 2>/dev/null`);
  expect(sha256(readFileSync(join(directory, "target")))).toBe(sha256(source));
  await shell("echo 3 > /proc/sys/vm/drop_caches");
  // Four readers and a writer at once, past the guest's cache.
  const pieces = `dd if=${find("source")} bs=4k iflag=direct count=${PIECES}`;
  const readers = Array.from({ length: 4 }, (_, n) =>
    shell(`${pieces} skip=${n * PIECES} 2>/dev/null | sha256sum`),
  );
  const writer = shell(
    `dd if=${find("source")} of=${find("target")} bs=4k oflag=direct seek=${PIECES} count=${PIECES} 2>/dev/null`,
  );
  for (const [n, sum] of (await Promise.all(readers)).entries())
    expect(sum).toBe(`${sha256(source.subarray(n * PIECE_BYTES, (n + 1) * PIECE_BYTES))}  -`);
  await writer;
  const target = readFileSync(join(directory, "target"));
  expect(target.subarray(PIECE_BYTES, 2 * PIECE_BYTES).equals(source.subarray(0, PIECE_BYTES))).toBe(true);
  expect(target.subarray(2 * PIECE_BYTES).equals(source.subarray(2 * PIECE_BYTES))).toBe(true);
}, 80_000);

test("a file system on a disk keeps its files over a remount", async () => {
  await shell(`mke2fs ${find("system")} >/dev/null && mount -t ext4 ${find("system")} /mnt`);
  await shell("for n in $(seq 100); do seq $n $((n + 500)) > /mnt/$n; done; rm /mnt/1?; sync");
  const sums = await shell("cd /mnt; sha256sum * | sha256sum");
  await shell("umount /mnt; echo 3 > /proc/sys/vm/drop_caches");
  await shell(`mount -t ext4 ${find("system")} /mnt`);
  expect(await shell("cd /mnt; sha256sum * | sha256sum")).toBe(sums);
  await shell("umount /mnt");
}, 80_000);

test("a file in the guest's memory is the file, and zeros behind it", async () => {
  const bytes = Number(await shell("echo $(($(cat /sys/block/pmem0/size) * 512))"));
  expect(bytes).toBeGreaterThanOrEqual(mapped.length);
  const expected = Buffer.alloc(bytes);
  mapped.copy(expected);
  expect(await shell("sha256sum < /dev/pmem0")).toBe(`${sha256(expected)}  -`);
}, 60_000);

/** What one connection to a server of the host brings, or takes. */
function serve(handle: (socket: Socket) => void): Promise<{ server: Server; port: number }> {
  return new Promise((resolve) => {
    const server = createServer({ allowHalfOpen: true }, handle);
    server.listen(0, HOST_ADDRESS, () => {
      const address = server.address();
      resolve({ server, port: typeof address === "object" && address ? address.port : 0 });
    });
  });
}

test("the network carries pings, and TCP in both directions at once", async () => {
  await shell(`ifconfig eth0 ${GUEST_ADDRESS} netmask 255.255.255.0 up`);
  expect(await shell(`ping -c 5 -s 1400 -i 0.1 ${HOST_ADDRESS} | tail -2`)).toContain("5 packets received");
  const received = Promise.withResolvers<string>();
  const sink = await serve((socket) => {
    const hash = createHash("sha256");
    socket.on("data", (chunk) => hash.update(chunk));
    socket.on("end", () => {
      received.resolve(hash.digest("hex"));
      socket.end();
    });
  });
  const some = source.subarray(0, 4_000_000);
  const spring = await serve((socket) => socket.end(some));
  try {
    const [sum] = await Promise.all([
      shell(`nc ${HOST_ADDRESS} ${spring.port} < /dev/null | sha256sum`),
      shell(`dd if=${find("source")} bs=4000000 count=1 2>/dev/null | nc ${HOST_ADDRESS} ${sink.port}`),
    ]);
    expect(sum).toBe(`${sha256(some)}  -`);
    expect(await received.promise).toBe(sha256(some));
  } finally {
    sink.server.close();
    spring.server.close();
  }
}, 80_000);

/** Sends `data` through the guest's echo and checks what comes back; `leave`: goes away in the middle. */
function echo(data: Uint8Array, leave: boolean): Promise<void> {
  return dialGuest(socketPath, 1025).then(
    (socket) =>
      new Promise((resolve, reject) => {
        const back = createHash("sha256");
        let length = 0;
        socket.on("data", (chunk) => {
          back.update(chunk);
          length += chunk.length;
          if (!leave && length < data.length) return;
          socket.destroy();
          if (leave || back.digest("hex") === sha256(data)) resolve();
          else reject(new Error("the echo is not what was sent"));
        });
        socket.on("error", (error) => (leave ? resolve() : reject(error)));
        socket.on("end", () => reject(new Error(`the echo ended after ${length} bytes`)));
        socket.resume();
        socket.write(data);
      }),
  );
}

test("vsock: 1,000 streams, 60 at a time, a third of them left in the middle, none mixed up", async () => {
  const sizes = [1, 100, 4052, 4053, 20_000, 70_000];
  let left = 1000;
  const worker = async () => {
    while (left-- > 0) await echo(randomBytes(sizes[left % sizes.length] ?? 1), left % 3 === 0);
  };
  await Promise.all(Array.from({ length: 60 }, worker));
  expect(await shell("echo still here")).toBe("still here");
}, 85_000);

test("vsock: much data on few streams arrives as it was sent", async () => {
  await Promise.all(Array.from({ length: 3 }, () => echo(source.subarray(0, 3_000_000), false)));
}, 80_000);

test("everything at once, with pauses in between", async () => {
  const work = Promise.all([
    shell(`dd if=${find("source")} bs=64k iflag=direct 2>/dev/null | sha256sum`),
    shell(`dd if=${find("source")} of=${find("target")} bs=256k oflag=direct conv=fsync 2>/dev/null`),
    ...Array.from({ length: 4 }, () => echo(source.subarray(0, 1_000_000), false)),
  ]);
  for (let n = 0; n < 10; n++) {
    await machine.pause();
    await Bun.sleep(20);
    await machine.resume();
    await Bun.sleep(100);
  }
  const [sum] = await work;
  expect(sum).toBe(`${sha256(source)}  -`);
  expect(sha256(readFileSync(join(directory, "target")))).toBe(sha256(source));
}, 85_000);
