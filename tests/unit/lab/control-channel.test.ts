import { expect, test } from "bun:test";
import { ControlChannel, LabHung } from "../../lab/control-channel.ts";

/** A machine at the other end of the port, as a shell script that reads and writes descriptor 3. */
async function machine(onLine: string, silenceMs = 20_000) {
  const script = `echo '{"kind":"ready"}' >&3; while read -r line <&3; do ${onLine}; done`;
  const child = Bun.spawn(["sh", "-c", script], { stdio: ["ignore", "ignore", "inherit", "pipe"] });
  const fd = child.stdio[3];
  if (typeof fd !== "number") throw new Error("Bun gave no socket");
  const channel = await ControlChannel.open(fd, { pingMs: 20, silenceMs });
  await channel.ready;
  return {
    channel,
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await child.exited;
      channel.fail(new Error("over"));
    },
  };
}

const output = `echo '{"kind":"output","id":1,"stream":"stdout","data":"aGVsbG8K"}' >&3`;
const pong = `case $line in *ping*) echo '{"kind":"pong"}' >&3;; esac`;

async function failure(run: Promise<unknown>): Promise<Error> {
  return await run.then(
    () => new Error("it ended well"),
    (error: Error) => error,
  );
}

test("a command's output and exit code are its own", async () => {
  await using lab = await machine(`${output}; echo '{"kind":"exit","id":1,"code":3}' >&3`);
  expect(await lab.channel.run(["true"])).toEqual({ code: 3, stdout: "hello\n", stderr: "" });
});

test("a command that prints no more on a machine that lives hangs, and its last words are told", async () => {
  await using lab = await machine(`case $line in *run*) ${output};; esac; ${pong}`);
  const error = await failure(lab.channel.run(["sleep"], { quietMs: 500 }));
  expect(error).toBeInstanceOf(LabHung);
  expect(error.message).toMatch(/^Nothing was printed for \d+ s after:\nhello$/);
});

test("a command that goes on printing does not hang", async () => {
  const end = `echo '{"kind":"exit","id":1,"code":0}' >&3`;
  const slow = `n=$((n + 1)); ${output}; [ $n = 100 ] && ${end}`;
  await using lab = await machine(slow);
  expect((await lab.channel.run(["slow"], { quietMs: 1500 })).code).toBe(0);
});

test("a machine that answers no ping hangs", async () => {
  await using lab = await machine(":", 300);
  const error = await failure(lab.channel.run(["sleep"]));
  expect(error).toBeInstanceOf(LabHung);
  expect(error.message).toStartWith("L1 was silent for");
  expect(await failure(lab.channel.run(["later"]))).toBe(error);
});

test("a command that takes too long is killed, and what it had printed is told", async () => {
  const killed = `case $line in *'"kill"'*) echo '{"kind":"exit","id":1,"code":137}' >&3;; esac`;
  await using lab = await machine(`case $line in *run*) ${output};; esac; ${killed}; ${pong}`);
  const error = await failure(lab.channel.run(["sleep"], { timeoutMs: 200 }));
  expect(error).toBeInstanceOf(LabHung);
  expect(error.message).toContain('"sleep" did not end within 0.2 s; it printed:\nhello');
});
