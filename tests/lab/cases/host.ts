/** L1 is what the other cases take it for: a host with hardware-style KVM, vhost-vsock, TAP devices and cgroup v2. */
import { expect, test } from "bun:test";
import { closeSync, openSync, readFileSync, statSync } from "node:fs";
import { QemuHypervisor } from "#hypervisor/qemu/hypervisor.ts";
import { probeKvm } from "#linux/kvm-kind.ts";
import { claimGuestCid } from "#linux/vhost-vsock.ts";
import { check } from "#sys/errno.ts";
import { O, openFd } from "#sys/fd.ts";
import { SYS, syscall } from "#sys/syscall.ts";

// linux/kvm.h
const KVM_GET_API_VERSION = 0xae00;
const KVM_CREATE_VM = 0xae01;
const KVM_CHECK_EXTENSION = 0xae03;
const KVM_CAP_IRQFD = 32;

test("the CPU has SVM, and kvm_amd uses nested paging", () => {
  expect(readFileSync("/proc/cpuinfo", "utf8")).toMatch(/^flags\s*:.*\bsvm\b/m);
  expect(readFileSync("/sys/module/kvm_amd/parameters/npt", "utf8").trim()).toBe("Y");
});

test("/dev/kvm speaks version 12 and makes a virtual machine", () => {
  using kvm = openFd("/dev/kvm", O.RDWR | O.CLOEXEC);
  expect(syscall(SYS.ioctl, kvm.number, KVM_GET_API_VERSION, 0)).toBe(12);
  expect(syscall(SYS.ioctl, kvm.number, KVM_CHECK_EXTENSION, KVM_CAP_IRQFD)).toBe(1);
  const machine = check(syscall(SYS.ioctl, kvm.number, KVM_CREATE_VM, 0), "Cannot make a virtual machine");
  closeSync(machine);
});

test("hako takes it for hardware KVM", async () => {
  expect(probeKvm()).toMatchObject({ kind: "hardware" });
  expect(await new QemuHypervisor().probe()).toMatchObject({
    usable: true,
    accelerator: "kvm",
    problems: [],
  });
});

test("vhost-vsock gives out context ids, each to one guest", () => {
  using first = claimGuestCid();
  using second = claimGuestCid();
  expect(first.cid).toBeGreaterThan(2);
  expect(second.cid).not.toBe(first.cid);
});

for (const device of ["/dev/vhost-vsock", "/dev/vhost-net", "/dev/net/tun", "/dev/fuse", "/dev/vsock"]) {
  test(`${device} opens`, () => {
    expect(statSync(device).isCharacterDevice()).toBeTrue();
    closeSync(openSync(device, "r+"));
  });
}

test("all resources have a cgroup v2 controller", () => {
  const controllers = readFileSync("/sys/fs/cgroup/cgroup.subtree_control", "utf8").trim().split(" ");
  expect(controllers).toEqual(expect.arrayContaining(["cpuset", "cpu", "io", "memory", "pids"]));
});

test("file systems of images and containers are there", () => {
  const filesystems = readFileSync("/proc/filesystems", "utf8");
  for (const name of ["erofs", "overlay", "ext4", "tmpfs"]) expect(filesystems).toContain(`\t${name}\n`);
});
