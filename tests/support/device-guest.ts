import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

const root = join(import.meta.dir, "../..");
const source = join(root, "tests/fixtures/device-guest.c");
const busybox = "/bin/busybox";

/** An initramfs of tests/fixtures/device-guest.c and busybox; built once for each version of the source. */
export async function deviceGuestInitramfs(): Promise<string> {
  const directory = join(root, "dist/test");
  const path = join(directory, `device-guest-${Bun.hash(readFileSync(source)).toString(16)}.cpio`);
  if (existsSync(path)) return path;
  mkdirSync(directory, { recursive: true });
  const work = mkdtempSync(join(tmpdir(), "hako-device-guest-"));
  try {
    mkdirSync(join(work, "bin"));
    copyFileSync(busybox, join(work, "bin/busybox"));
    await run(
      [
        "musl-gcc",
        ...["-static", "-s", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"],
        ...["-idirafter", "/usr/include", "-idirafter", "/usr/include/x86_64-linux-gnu"],
        ...["-o", join(work, "init"), source],
      ],
      work,
    );
    const list = "printf 'init\\nbin\\nbin/busybox\\n'";
    await run(["sh", "-c", `${list} | cpio --create --format=newc --quiet > initramfs`], work);
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

/** A stream to a port of the guest by the monitor's socket, after its OK; rejects when the guest refuses. */
export function dialGuest(path: string, port: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ path, allowHalfOpen: true });
    let line = "";
    const refused = () => {
      reject(new Error(`port ${port} is refused`));
      socket.destroy();
    };
    const take = (chunk: Buffer) => {
      line += chunk.toString("latin1");
      const end = line.indexOf("\n");
      if (end < 0) return;
      socket.off("data", take).off("end", refused);
      socket.pause();
      if (!line.startsWith("OK ")) return reject(new Error(`the answer is ${JSON.stringify(line)}`));
      const rest = Buffer.from(line.slice(end + 1), "latin1");
      if (rest.length > 0) socket.unshift(rest);
      resolve(socket);
    };
    socket.on("data", take);
    socket.on("error", reject);
    socket.on("end", refused);
    socket.write(`CONNECT ${port}\n`);
  });
}

/** Runs a line in the guest's shell; resolves to its output, throws when it fails. */
export async function guestShell(path: string, line: string): Promise<string> {
  const socket = await dialGuest(path, 1024);
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  let output = "";
  socket.on("data", (chunk) => {
    output += chunk.toString();
  });
  socket.on("end", () => resolve(output));
  socket.on("error", reject);
  socket.resume();
  socket.write(`${line}\n`);
  const text = await promise;
  socket.destroy();
  const match = /exit (\d+)\n$/.exec(text);
  if (match?.[1] !== "0") throw new Error(`guest: "${line}": ${text}`);
  return text.slice(0, match.index).trimEnd();
}
