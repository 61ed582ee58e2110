/** The guest kernel, Linux 6.1, reads our images as the host's kernel reads the directories they were made of. */
import { expect } from "bun:test";
import {
  chmodSync,
  closeSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { buildGuestImage } from "#image/guest-image.ts";
import { packDirectory } from "#image/pack-directory.ts";
import { kernelPath } from "../support/contract-guest.ts";
import { pattern, runTool, WorkDirectory } from "../support/erofs-tools.ts";
import { makeImageTree } from "../support/image-tree.ts";
import { busyboxMissing } from "../support/images.ts";
import { testIf } from "../support/skip.ts";

const CHUNK = 2 * 1024 * 1024;

/** Prints one line for every file: all that stat knows but inode numbers, and the digest of its data. */
const DESCRIBE = `find . | sort | while IFS= read -r f; do
  s=$(stat -c '%f %u %g %Y %t:%T' "$f")
  if [ -L "$f" ]; then echo "$f $s $(readlink "$f" | sha256sum)"
  elif [ -f "$f" ]; then echo "$f $s $(stat -c '%s %h' "$f") $(sha256sum < "$f")"
  else echo "$f $s"; fi
done`;

const INIT = `#!/bin/sh
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
serial() { for d in /sys/block/vd*; do [ "$(cat $d/serial)" = "$1" ] && echo /dev/$(basename $d); done; }
mount -t erofs -o ro $(serial tree) /mnt && cd /mnt && {
  echo @tree; ${DESCRIBE}
}
cd /; umount /mnt
mount -t erofs -o ro,device=$(serial exe) $(serial guest) /mnt && {
  echo @guest; sha256sum < /mnt/usr/bin/hako; sha256sum < /mnt/usr/lib/libx.so
}
echo @end
reboot -f
`;

function missing(): string | undefined {
  if (process.getuid?.() !== 0) return "needs root, to make devices and owners";
  if (!existsSync(kernelPath)) return "needs the guest kernel (bun build.ts kernel)";
  const tools = ["qemu-system-x86_64", "cpio"].filter((tool) => !Bun.which(tool));
  return tools.length > 0 ? `needs ${tools.join(" and ")}` : busyboxMissing();
}

function makeInitramfs(work: WorkDirectory): string {
  const top = work.join("initramfs");
  for (const name of ["bin", "dev", "proc", "sys", "mnt"]) mkdirSync(`${top}/${name}`, { recursive: true });
  copyFileSync(Bun.which("busybox") ?? "", `${top}/bin/busybox`);
  runTool("chroot", top, "/bin/busybox", "--install", "-s", "/bin");
  runTool("mknod", `${top}/dev/console`, "c", "5", "1");
  writeFileSync(`${top}/init`, INIT);
  chmodSync(`${top}/init`, 0o755);
  runTool("sh", "-c", `cd ${top} && find . | cpio -o -H newc --quiet > ${work.join("initramfs.cpio")}`);
  return work.join("initramfs.cpio");
}

async function makeImages(work: WorkDirectory): Promise<void> {
  makeImageTree(work.join("tree"));
  // The one name with a line break in it would break the lines of the listing.
  runTool("find", work.join("tree"), "-name", "*A", "-delete");
  const tree = openSync(work.join("tree.erofs"), "wx+");
  await packDirectory(work.join("tree"), tree);
  closeSync(tree);
  writeFileSync(work.join("exe"), pattern(3 * CHUNK + 12_345));
  const guest = openSync(work.join("guest.erofs"), "wx+");
  const files = [{ path: "lib/libx.so", bytes: pattern(1_900_001) }];
  await buildGuestImage({ files, executable: { path: work.join("exe") }, output: guest });
  closeSync(guest);
  // The device has none of the last, partial chunk.
  truncateSync(work.join("exe"), 3 * CHUNK);
}

/** Boots the kernel with the images as virtio block devices and returns what it printed. */
function boot(work: WorkDirectory, initramfs: string): string {
  const disk = (serial: string, file: string) => [
    ...["-drive", `id=${serial},file=${work.join(file)},format=raw,if=none,readonly=on`],
    ...["-device", `virtio-blk-device,drive=${serial},serial=${serial}`],
  ];
  return runTool(
    "qemu-system-x86_64",
    ...["-M", "microvm,acpi=off,pit=on,pic=on,rtc=on", "-accel", "tcg", "-cpu", "max", "-m", "256"],
    ...["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"],
    ...["-kernel", kernelPath, "-initrd", initramfs],
    ...["-append", "quiet console=ttyS0 reboot=t panic=-1 acpi=off pci=off nolapic_timer tsc=reliable"],
    ...disk("tree", "tree.erofs"),
    ...disk("guest", "guest.erofs"),
    ...disk("exe", "exe"),
  );
}

const reason = missing();

testIf(reason === undefined, reason ?? "")(
  "Linux 6.1 reads every kind of inode, and the executable from its device",
  async () => {
    using work = new WorkDirectory();
    await makeImages(work);
    const output = boot(work, makeInitramfs(work)).replaceAll("\r", "");
    const section = (name: string) => output.split(`@${name}\n`)[1]?.split("\n@")[0]?.split("\n") ?? [];
    const expected = runTool("busybox", "sh", "-c", `cd ${work.join("tree")} && ${DESCRIBE}`);
    expect(section("tree")).toEqual(expected.trimEnd().split("\n"));
    const digest = (bytes: Uint8Array) => `${new Bun.CryptoHasher("sha256").update(bytes).digest("hex")}  -`;
    expect(section("guest")).toEqual([digest(pattern(3 * CHUNK + 12_345)), digest(pattern(1_900_001))]);
    expect(readFileSync(work.join("exe")).length).toBe(3 * CHUNK);
  },
  120_000,
);
