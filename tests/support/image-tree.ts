import {
  chmodSync,
  chownSync,
  closeSync,
  linkSync,
  lutimesSync,
  mkdirSync,
  openSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { check } from "#sys/errno.ts";
import { SYS, syscall } from "#sys/syscall.ts";
import { pattern, runTool } from "./erofs-tools.ts";

const ACL = "0200000001000600ffffffff02000600e803000004000400ffffffff10000600ffffffff20000400ffffffff";
const CAPABILITY = "0100000200200000000000000000000000000000";

function setXattr(path: string, name: string, value: Uint8Array): void {
  const result = syscall(
    SYS.lsetxattr,
    Buffer.from(`${path}\0`),
    Buffer.from(`${name}\0`),
    value,
    value.length,
    0,
  );
  check(result, `Cannot set ${name}`);
}

/** Makes a directory with one of everything that an image can hold. Needs root. */
export function makeImageTree(top: string): void {
  const at = (name: string) => `${top}/${name}`;
  mkdirSync(top, { mode: 0o755 });
  for (const size of [0, 1, 4032, 4096, 5000, 65536, 300_001])
    writeFileSync(at(`size-${size}`), pattern(size));
  mkdirSync(at("dir/sub/deep"), { recursive: true });
  writeFileSync(at("dir/sub/deep/file"), "deep");
  mkdirSync(at("sticky"));
  chmodSync(at("sticky"), 0o1777);
  writeFileSync(at("setuid"), "x");
  chownSync(at("setuid"), 1234, 70_000);
  chmodSync(at("setuid"), 0o6755);
  linkSync(at("size-5000"), at("dir/hard link"));
  linkSync(at("size-5000"), at("second"));
  symlinkSync("dir/sub", at("link"));
  symlinkSync("x".repeat(4000), at("long-link"));
  linkSync(at("link"), at("hard-link-to-link"));
  runTool("mknod", at("null"), "c", "1", "3");
  runTool("mknod", at("disk"), "b", "259", "70000");
  runTool("mkfifo", at("fifo"));
  writeFileSync(
    Buffer.concat([Buffer.from(`${top}/`), Buffer.from([0xff, 0xfe, 0x20, 0x0a, 0x41])]),
    "bytes",
  );
  for (let index = 0; index < 600; index++)
    writeFileSync(at(`dir/many-${"n".repeat(index % 90)}${index}`), `${index}`);
  setXattr(at("size-1"), "user.name", Buffer.from("value"));
  setXattr(at("size-1"), "trusted.binary", pattern(3000));
  setXattr(at("size-4096"), "security.capability", Buffer.from(CAPABILITY, "hex"));
  setXattr(at("size-0"), "system.posix_acl_access", Buffer.from(ACL, "hex"));
  setXattr(at("dir"), "system.posix_acl_default", Buffer.from(ACL, "hex"));
  setXattr(at("link"), "trusted.on-link", Buffer.from("l"));
  makeSparse(at("sparse"));
  for (const [name, time] of [
    ["size-1", 1.5],
    ["size-4096", -3.25],
    ["dir", 0],
    ["setuid", 4_102_444_800.5],
  ] as const) {
    utimesSync(at(name), time, time);
  }
  lutimesSync(at("link"), 77, 77);
}

/** A file of 20 MB that is mostly holes. */
export function makeSparse(path: string): void {
  const fd = openSync(path, "w");
  writeSync(fd, pattern(5000), 0, 5000, 12_345);
  writeSync(fd, pattern(100), 0, 100, 9_000_000);
  closeSync(fd);
  truncateSync(path, 20_000_000);
}
