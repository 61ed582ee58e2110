import { expect } from "bun:test";
import { join } from "node:path";
import { writeContainer } from "#agent/launcher/container-request.ts";
import { RequestWriter } from "#agent/launcher/request-writer.ts";
import { NO_FD, OP } from "#agent/launcher/wire.ts";
import { type Fd, memfd, setNonBlocking } from "#sys/fd.ts";
import { waitReadable } from "#sys/poller.ts";
import { receiveFds, sendFds, socketpair } from "#sys/socket.ts";
import {
  hakoInit,
  launchObstacle,
  makeRootfs,
  makeSpec,
  Pipes,
  TemporaryDirectory,
} from "../support/container.ts";
import { testIf } from "../support/skip.ts";

const containerTest = testIf(launchObstacle === undefined, launchObstacle ?? "");
const ORPHANS = 1500;

/** The next message's words. Its descriptors are closed. */
async function receive(fd: Fd): Promise<Int32Array> {
  const buffer = Buffer.alloc(1024);
  for (;;) {
    const message = receiveFds(fd.number, buffer, 4);
    if (message === "closed") return new Int32Array();
    if (message !== "again") {
      for (const received of message.fds) received.close();
      return new Int32Array(buffer.buffer, buffer.byteOffset, message.length >> 2).slice();
    }
    await waitReadable(fd.number);
  }
}

containerTest("an agent that does not read for a while loses no exit", async () => {
  using directory = new TemporaryDirectory();
  const rootfs = makeRootfs(join(directory.path, "rootfs"));
  const [ours, theirs] = socketpair("seqpacket");
  using launcher = ours;
  setNonBlocking(theirs.number, false);
  const child = Bun.spawn([hakoInit, "--launcher"], {
    env: {},
    stdio: ["ignore", "ignore", "inherit", theirs.number],
  });
  theirs.close();

  // The container shares its pid namespace with the launcher, which so inherits its orphans.
  const script = `i=0; while [ $i -lt ${ORPHANS} ]; do (exec true &); i=$((i+1)); done; echo made; exit 9`;
  using pipes = new Pipes();
  const writer = new RequestWriter();
  const spec = makeSpec(["sh", "-c", script], { namespaces: ["mount"] });
  writeContainer(writer, { spec, rootfs, stdio: pipes.stdio })[Symbol.dispose]();
  using request = memfd("request", writer.finish());
  const [report, reportEnd] = socketpair("seqpacket");
  using conversation = report;
  setNonBlocking(reportEnd.number, false);
  const words = Uint32Array.of(OP.LAUNCH, 0, NO_FD);
  sendFds(launcher.number, new Uint8Array(words.buffer), [request.number, reportEnd.number, ...writer.fds]);
  reportEnd.close();
  let pid = 0;
  for (let op = 0; op !== OP.READY; ) {
    const [kind = -1, value = 0] = await receive(conversation);
    expect([OP.HELPER, OP.PID, OP.READY]).toContain(kind as never);
    if (kind === OP.PID) pid = value;
    op = kind;
  }
  sendFds(conversation.number, new Uint8Array(Uint32Array.of(OP.START).buffer), []);
  pipes.closeTheirs();
  await pipes.waitFor("made");

  // Far more exits than the socket holds have happened, and none has been read.
  let exits = 0;
  let status = -1;
  while (exits < ORPHANS || status < 0) {
    const [op, , exited, raw = -1] = await receive(launcher);
    expect(op).toBe(OP.EXIT);
    exits += 1;
    if (exited === pid) status = raw;
  }
  expect(status).toBe(9 << 8);
  launcher.close();
  expect(await child.exited).toBe(0);
});
