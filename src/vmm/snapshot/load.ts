import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { HakoError } from "#base/error.ts";
import { version } from "#base/version.ts";
import { E, isErrno } from "#sys/errno.ts";
import { type Fd, O, openFd } from "#sys/fd.ts";
import type { Architecture, HostCpu } from "#vmm/architecture.ts";
import { decodeSections, type Section } from "#vmm/wire-format.ts";
import { decodeManifest, type Manifest } from "./machine-record.ts";
import { hashMemory } from "./memory-file.ts";
import { MEMORY_FILE, STATE_FILE } from "./save.ts";
import { damaged, decodeStateFile, STATE_FILE_MAX } from "./state-file.ts";

/** A snapshot that was read and fits this host. */
export interface Snapshot extends Disposable {
  readonly manifest: Manifest;
  readonly vcpus: readonly (readonly Section[])[];
  readonly machine: readonly Section[];
  /** By slot. */
  readonly devices: ReadonlyMap<number, Uint8Array>;
  /** The file of its memory, open for reading. */
  readonly memory: Fd;
}

/**
 * Reads a snapshot that {@link saveMachine} wrote. Throws DATA_LOSS when it is damaged, FAILED_PRECONDITION when this hako
 * or this host cannot go on with it, NOT_FOUND when there is none. `wholeMemory`: the memory's hash is looked at, too,
 * which reads all of it; otherwise its size must do.
 */
export function loadSnapshot<Cpu extends HostCpu>(
  dir: string,
  architecture: Architecture<Cpu>,
  cpu: Cpu,
  wholeMemory: boolean,
): Snapshot {
  const parts = decodeStateFile(readState(join(dir, STATE_FILE)));
  const part = (name: string) => {
    const bytes = parts.get(name);
    if (!bytes) throw damaged(`its part "${name}" is missing`);
    return Buffer.from(bytes);
  };
  const manifest = decodeManifest(parts.get("manifest"));
  checkOrigin(manifest);
  const vcpuCount = manifest.machine.create.vcpus;
  const vcpus = Array.from({ length: vcpuCount }, (_, index) => decodeSections(part(`vcpu.${index}`)));
  const problem = vcpus[0] && architecture.restoreProblem(vcpus[0], cpu);
  if (problem !== undefined) throw refused(problem);
  using stack = new DisposableStack();
  const memory = stack.use(openMemory(join(dir, MEMORY_FILE), manifest, wholeMemory));
  const devices = manifest.machine.devices.map(({ slot }) => [slot, part(`device.${slot}`)] as const);
  const held = stack.move();
  return {
    manifest,
    vcpus,
    machine: architecture.restoreMachine(decodeSections(part("machine"))),
    devices: new Map(devices),
    memory,
    [Symbol.dispose]: () => held.dispose(),
  };
}

function readState(path: string): Buffer {
  try {
    const { size } = statSync(path);
    if (size > STATE_FILE_MAX) throw damaged(`its state has ${size} bytes`);
    return readFileSync(path);
  } catch (cause) {
    if (!isErrno(cause, E.ENOENT)) throw cause;
    throw new HakoError("NOT_FOUND", `Cannot find a snapshot: there is no "${path}"`, { cause });
  }
}

function checkOrigin(manifest: Manifest): void {
  if (manifest.architecture !== process.arch) {
    throw refused(`it was made on ${manifest.architecture}, this is ${process.arch}`);
  }
  if (manifest.hako !== version) {
    throw refused(`it was made by hako ${manifest.hako}, this is ${version}`);
  }
}

function openMemory(path: string, { memoryBytes, memoryHash }: Manifest, whole: boolean): Fd {
  using stack = new DisposableStack();
  let memory: Fd;
  try {
    memory = stack.use(openFd(path, O.RDONLY));
  } catch (cause) {
    if (isErrno(cause, E.ENOENT)) throw damaged("its memory is missing");
    throw cause;
  }
  const size = BigInt(statSync(`/proc/self/fd/${memory.number}`).size);
  if (size !== memoryBytes) throw damaged(`its memory has ${size} bytes instead of ${memoryBytes}`);
  if (whole && hashMemory(memory.number, Number(size)) !== memoryHash) {
    throw damaged("the hash of its memory is wrong");
  }
  stack.move();
  return memory;
}

function refused(why: string): HakoError {
  return new HakoError("FAILED_PRECONDITION", `Cannot restore this snapshot: ${why}`);
}
