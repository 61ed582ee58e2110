import { afterAll, expect, test } from "bun:test";
import {
  chmodSync,
  closeSync,
  constants,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Process } from "#runtime/process.ts";
import { TaskIo } from "#shim/io/task-io.ts";

const dir = mkdtempSync(join(tmpdir(), "io-"));
const container = { id: "c", namespace: "n" };
let pipes = 0;

afterAll(() => rmSync(dir, { recursive: true, force: true }));

function pipe(): string {
  const path = join(dir, `pipe${pipes++}`);
  Bun.spawnSync(["mkfifo", path]);
  return path;
}

/** A process whose output is given and whose input is kept. */
class ScriptedProcess implements Process {
  readonly id = "c";
  readonly terminal: boolean = false;
  readonly input: Buffer[] = [];
  inputEnded = false;
  readonly #stdout: string[];
  readonly #stderr: string[];

  constructor(stdout: string[], stderr: string[] = []) {
    this.#stdout = stdout;
    this.#stderr = stderr;
  }

  async readStdout(): Promise<Uint8Array> {
    return Buffer.from(this.#stdout.shift() ?? "");
  }

  async readStderr(): Promise<Uint8Array> {
    return Buffer.from(this.#stderr.shift() ?? "");
  }

  async writeStdin(data: Uint8Array): Promise<void> {
    this.input.push(Buffer.from(data));
  }

  async closeStdin(): Promise<void> {
    this.inputEnded = true;
  }

  async resize(): Promise<void> {}

  async kill(): Promise<void> {}

  async wait(): Promise<number> {
    return 0;
  }
}

async function until(check: () => boolean): Promise<void> {
  for (let tries = 0; tries < 500 && !check(); tries++) await Bun.sleep(10);
  expect(check()).toBe(true);
}

test("output goes into pipes, whose reader sees its end", async () => {
  const [stdout, stderr] = [pipe(), pipe()];
  const readers = [stdout, stderr].map((path) => openSync(path, constants.O_RDONLY | constants.O_NONBLOCK));
  using io = await TaskIo.open({ stdin: "", stdout, stderr, terminal: false }, container);
  io.attach(new ScriptedProcess(["one ", "two"], ["err"]));
  await io.drained;
  const texts = readers.map((fd) => {
    const buffer = Buffer.alloc(100);
    const text = buffer.toString("utf8", 0, readSync(fd, buffer));
    const end = readSync(fd, buffer);
    closeSync(fd);
    return [text, end];
  });
  expect(texts).toEqual([
    ["one two", 0],
    ["err", 0],
  ]);
});

test("output waits for a reader that is away, and is not lost", async () => {
  const stdout = pipe();
  const big = "x".repeat(200_000);
  using io = await TaskIo.open({ stdin: "", stdout, stderr: "", terminal: false }, container);
  io.attach(new ScriptedProcess([big]));
  expect(await Promise.race([io.drained.then(() => "drained"), Bun.sleep(50).then(() => "waits")])).toBe(
    "waits",
  );
  const reader = Bun.spawn(["cat", stdout], { stdout: "pipe" });
  await io.drained;
  expect(await reader.stdout.text()).toBe(big);
});

test("input ends when it is told to, not when a writer goes", async () => {
  const stdin = pipe();
  using io = await TaskIo.open({ stdin, stdout: "", stderr: "", terminal: false }, container);
  const process = new ScriptedProcess([]);
  io.attach(process);
  for (const text of ["first ", "second"]) {
    const writer = openSync(stdin, constants.O_WRONLY | constants.O_NONBLOCK);
    writeSync(writer, text);
    closeSync(writer);
  }
  await until(() => Buffer.concat(process.input).toString() === "first second");
  await Bun.sleep(30);
  expect(process.inputEnded).toBe(false);
  io.closeStdin();
  await until(() => process.inputEnded);
});

test("a file takes output, and what is no pipe is refused", async () => {
  const log = join(dir, "log file");
  using io = await TaskIo.open(
    { stdin: "", stdout: `file://${encodeURI(log)}`, stderr: "", terminal: true },
    container,
  );
  io.attach(new ScriptedProcess(["logged"]));
  await io.drained;
  expect(readFileSync(log, "utf8")).toBe("logged");
  const streams = { stdin: "", stdout: "", stderr: "", terminal: false };
  await expect(TaskIo.open({ ...streams, stdout: join(dir, "missing") }, container)).rejects.toThrow(
    "Cannot open",
  );
  await expect(TaskIo.open({ ...streams, stdin: "relative" }, container)).rejects.toThrow("standard input");
  await expect(TaskIo.open({ ...streams, stdout: "http://x/y" }, container)).rejects.toThrow(
    "Cannot send output",
  );
});

test("a logging program gets both streams, its arguments and who it logs for", async () => {
  const [program, log] = [join(dir, "logger"), join(dir, "logged")];
  writeFileSync(
    program,
    `#!/bin/sh\nexec 5>&-\n{ echo "$CONTAINER_NAMESPACE/$CONTAINER_ID $* $SECRET"; cat <&3; cat <&4; } > ${log}.new\nmv ${log}.new ${log}\n`,
  );
  chmodSync(program, 0o755);
  process.env.SECRET = "secret";
  const uri = `binary://${program}?level=info`;
  using io = await TaskIo.open({ stdin: "", stdout: uri, stderr: uri, terminal: false }, container);
  delete process.env.SECRET;
  io.attach(new ScriptedProcess(["out\n"], ["err\n"]));
  await io.drained;
  await until(() => Bun.spawnSync(["test", "-e", log]).exitCode === 0);
  expect(readFileSync(log, "utf8")).toBe("n/c level info \nout\nerr\n");
  const missing = `binary://${dir}/no-such-program`;
  await expect(
    TaskIo.open({ stdin: "", stdout: missing, stderr: missing, terminal: false }, container),
  ).rejects.toThrow("Cannot start the logger");
});
