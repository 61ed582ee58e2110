import { expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { QemuProcess } from "#hypervisor/qemu/process.ts";
import { memfd } from "#sys/fd.ts";

function run(script: string, fds: readonly number[] = []): QemuProcess {
  return new QemuProcess("/bin/sh", ["-c", script], fds, "/run/of/the/machine");
}

test("a child has descriptors in their order, one variable, a session of its own and no input", async () => {
  using first = memfd("first", Buffer.from("first"));
  using second = memfd("second", Buffer.from("second"));
  const script = "cat <&3 >&2; cat <&4 >&2; read x || echo eof >&2; exec sleep 60";
  const child = run(script, [first.number, second.number]);
  const stat = readFileSync(`/proc/${child.state.pid}/stat`, "latin1").split(") ")[1]?.split(" ") ?? [];
  expect(Number(stat[3])).toBe(child.state.pid);
  expect(Number(stat[19])).toBe(child.state.startTime);
  expect(readFileSync(`/proc/${child.state.pid}/environ`, "latin1")).toBe(
    "HAKO_MACHINE_RUN_DIR=/run/of/the/machine\0",
  );
  // While a program starts it has its libraries open; a descriptor too many would stay until the time is over.
  const own = ["0", "1", "2", "3", "4"];
  const settled = () => /^sleep\0/.test(readFileSync(`/proc/${child.state.pid}/cmdline`, "latin1"));
  const open = () => readdirSync(`/proc/${child.state.pid}/fd`).sort();
  while (!settled() || !Bun.deepEquals(open(), own)) await Bun.sleep(5);
  child.kill();
  expect(await child.exited).toEqual({ code: null, signal: "SIGKILL" });
  expect(await child.messages()).toBe("firstsecondeof");
});

test("the end of what it writes to its standard error is kept, without control characters", async () => {
  const child = run(
    "i=0; while [ $i -lt 2000 ]; do echo line $i >&2; i=$((i+1)); done; printf '\\033[1mend\\n' >&2; exit 3",
  );
  expect(await child.exited).toEqual({ code: 3, signal: null });
  const messages = await child.messages();
  expect(messages).toEndWith("line 1999\nend");
  expect(messages.length).toBeLessThanOrEqual(4096);
});

test("a program that cannot be started is an error", () => {
  expect(() => new QemuProcess("/nonexistent/qemu", [], [], "/")).toThrow('Cannot start "/nonexistent/qemu"');
});
