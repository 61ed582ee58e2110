import { expect, test } from "bun:test";
import { pipe, readFd, writeFd } from "#sys/fd.ts";
import { waitReadable, waitWritable } from "#sys/poller.ts";
import { pidfdOpen, processStartTime, waitPidfd } from "#sys/process.ts";
import { receiveFds, sendFds, socketpair } from "#sys/socket.ts";

test("waitReadable() resolves when data, end of file or a process exit comes", async () => {
  const { read, write } = pipe();
  const order: string[] = [];
  const waiting = waitReadable(read.number).then(() => order.push("readable"));
  await Bun.sleep(5);
  order.push("written");
  writeFd(write.number, Buffer.from("x"));
  await waiting;
  expect(order).toEqual(["written", "readable"]);
  expect(readFd(read.number, Buffer.alloc(4))).toBe(1);
  const end = waitReadable(read.number);
  write.close();
  await end;
  expect(readFd(read.number, Buffer.alloc(4))).toBe(0);
  read.close();

  const child = Bun.spawn(["sleep", "0.05"]);
  using pidfd = pidfdOpen(child.pid);
  await waitPidfd(pidfd.number);
  await child.exited;
  expect(child.exitCode).toBe(0);
});

test("a descriptor can be waited on for reading and for writing at once", async () => {
  const [left, right] = socketpair("seqpacket");
  const readable = waitReadable(left.number);
  await waitWritable(left.number);
  sendFds(right.number, Buffer.from("hi"), []);
  await readable;
  left.close();
  right.close();
});

test("waitReadable() ends with CANCELLED on the signal and can be called again", async () => {
  const { read, write } = pipe();
  const controller = new AbortController();
  const waiting = waitReadable(read.number, controller.signal);
  controller.abort();
  await expect(waiting).rejects.toMatchObject({ code: "CANCELLED" });
  const again = waitReadable(read.number);
  writeFd(write.number, Buffer.from("x"));
  await again;
  expect(readFd(read.number, Buffer.alloc(2))).toBe(1);
  read.close();
  write.close();
});

test("two waiters for one direction are refused, not lost", async () => {
  const { read, write } = pipe();
  const first = waitReadable(read.number);
  await expect(waitReadable(read.number)).rejects.toMatchObject({ code: "FAILED_PRECONDITION" });
  writeFd(write.number, Buffer.from("x"));
  await first;
  read.close();
  write.close();
});

test("receiveFds() takes bytes and descriptors, refuses more than its receiver allows", async () => {
  const [left, right] = socketpair("seqpacket");
  const { read, write } = pipe();
  const buffer = Buffer.alloc(16);
  expect(receiveFds(right.number, buffer, 4)).toBe("again");
  sendFds(left.number, Buffer.from("ends"), [read.number, write.number]);
  await waitReadable(right.number);
  const message = receiveFds(right.number, buffer, 4);
  if (typeof message === "string") throw new Error(message);
  expect(buffer.toString("latin1", 0, message.length)).toBe("ends");
  expect(message.fds).toHaveLength(2);
  writeFd(message.fds[1]?.number ?? -1, Buffer.from("z"));
  expect(readFd(read.number, buffer)).toBe(1);
  for (const fd of message.fds) fd.close();

  sendFds(left.number, Buffer.from("ends"), [read.number, write.number, read.number]);
  expect(() => receiveFds(right.number, buffer, 1)).toThrow("larger than its receiver allows");
  left.close();
  expect(receiveFds(right.number, buffer, 0)).toBe("closed");
  right.close();
  read.close();
  write.close();
});

test("processStartTime() names a process and is undefined for none", () => {
  expect(processStartTime(process.pid)).toBeGreaterThan(0);
  expect(processStartTime(2 ** 22 - 1)).toBeUndefined();
});
