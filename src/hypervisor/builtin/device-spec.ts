import { fstatSync } from "node:fs";
import { HakoError } from "#base/error.ts";
import type { AgentChannel, BlockSpec, DeviceSpec, NetworkSpec } from "#hypervisor/hypervisor.ts";
import { check } from "#sys/errno.ts";
import { SYS, syscall } from "#sys/syscall.ts";
import type { VmBlock, VmDevice, VmNet, VmPmem, VmVsock } from "#vmm/device.ts";

/** _IOR(0x12, 114, size_t) of linux/fs.h. */
const BLKGETSIZE64 = 0x8008_1272;
const F_GETFL = 3;
const O_ACCMODE = 3;
const O_RDWR = 2;

/** What hako-vmm is to make of a device. Throws INVALID_ARGUMENT or FAILED_PRECONDITION for a file it cannot be made of. */
export function toVmDevice(spec: DeviceSpec): VmDevice {
  if (spec.kind === "network") return toNet(spec);
  if (spec.kind === "share") {
    throw new HakoError("UNIMPLEMENTED", `Cannot share "${spec.tag}": the built-in monitor has no virtio-fs`);
  }
  return spec.inPlace ? toPmem(spec) : toBlock(spec);
}

/** The kind of what {@link toVmDevice} makes of a device that was plugged in. */
export function vmKind(spec: DeviceSpec): VmDevice["kind"] {
  return spec.kind === "network" ? "net" : "block";
}

function toBlock(spec: BlockSpec): VmBlock {
  const size = fileSize(spec);
  if (!spec.readOnly) requireWritable(spec);
  const { id, fd, readOnly, serial } = spec;
  return { kind: "block", id, fd, size, readOnly, serial };
}

/** Read-only always: the guest runs what lies there. */
function toPmem(spec: BlockSpec): VmPmem {
  return { kind: "pmem", id: spec.id, fd: spec.fd, size: fileSize(spec), readOnly: true };
}

function toNet({ id, tapFds, macAddress, mtu }: NetworkSpec): VmNet {
  const mac = Uint8Array.from(macAddress.split(":"), (byte) => Number.parseInt(byte, 16));
  return { kind: "net", id, tapFds, mac, ...(mtu === undefined ? {} : { mtu }) };
}

export function toVsock(agent: AgentChannel): VmVsock {
  if (agent.kind === "hybrid-vsock") {
    return { kind: "vsock", id: "agent", cid: BigInt(agent.cid), listenerFd: agent.listenerFd };
  }
  throw new HakoError(
    "UNIMPLEMENTED",
    `Cannot reach an agent by "${agent.kind}": the built-in monitor has a vsock socket of its own`,
  );
}

function fileSize({ id, fd }: BlockSpec): bigint {
  const status = fstatSync(fd, { bigint: true });
  if (status.isFile()) return status.size;
  if (!status.isBlockDevice()) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Cannot use device "${id}" as a disk: it is neither a file nor a block device`,
    );
  }
  const size = BigUint64Array.of(0n);
  check(syscall(SYS.ioctl, fd, BLKGETSIZE64, size), `Cannot read the size of device "${id}"`);
  return size[0] ?? 0n;
}

function requireWritable({ id, fd }: BlockSpec): void {
  const flags = check(syscall(SYS.fcntl, fd, F_GETFL, 0), `Cannot use device "${id}"`);
  if ((flags & O_ACCMODE) === O_RDWR) return;
  throw new HakoError(
    "FAILED_PRECONDITION",
    `Cannot use device "${id}" as a writable disk: its file is open for reading alone`,
  );
}
