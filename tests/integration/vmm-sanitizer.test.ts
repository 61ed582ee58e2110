import { afterAll, beforeAll, expect } from "bun:test";
import { join } from "node:path";
import { E, isErrno } from "#sys/errno.ts";
import { memfd, O, openFd } from "#sys/fd.ts";
import { TemporaryDirectory } from "../support/container.ts";
import { countForEver, out, print, spin } from "../support/real-mode.ts";
import { testIf } from "../support/skip.ts";
import {
  decodeSections,
  MMIO_BASE,
  machineCreate,
  memoryAdd,
  section,
  TestMachine,
  wire,
  words,
} from "../support/vmm-machine.ts";
import { encodeMessage, VmmWorker } from "../support/vmm-worker.ts";

const root = join(import.meta.dir, "../..");
const obstacle = process.getuid?.() !== 0 ? "needs root" : Bun.which("gcc") ? undefined : "needs gcc";
const sanitizerTest = testIf(obstacle === undefined, obstacle ?? "");

/** A round of the fuzz test is a worker; what it crashes of is found by its number. */
const ROUNDS = 12;
const MESSAGES_A_ROUND = 250;

let directory: TemporaryDirectory | undefined;
let program = "";

/** hako-vmm with the address and undefined behaviour sanitizers; those make calls that no seccomp filter would let by. */
function startSanitized(): VmmWorker {
  return new VmmWorker({
    program,
    environment: ["ASAN_OPTIONS=detect_leaks=0:abort_on_error=0:exitcode=99"],
  });
}

beforeAll(() => {
  if (obstacle) return;
  directory = new TemporaryDirectory();
  program = join(directory.path, "hako-vmm");
  const folders = ["native/vmm", "native/vmm/virtio", "native/vmm/x86_64"];
  const sources = folders.flatMap((folder) => [...new Bun.Glob(`${folder}/*.c`).scanSync(root)]);
  const flags = ["-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-fno-sanitize-recover=all"];
  const command = ["gcc", ...flags, "-fsanitize=address,undefined", "-o", program, ...sources, "-lpthread"];
  const { exitCode, stderr } = Bun.spawnSync(command, { cwd: root });
  if (exitCode !== 0) throw new Error(`Cannot build hako-vmm: ${stderr}`);
}, 120_000);

afterAll(() => directory?.[Symbol.dispose]());

sanitizerTest("a machine's life is clean under the sanitizers", async () => {
  const code = [...print("x"), ...countForEver(0x500, [...print("."), ...out(0x80, 0)])];
  await using machine = await TestMachine.create(code, { vcpus: 2, running: 1 }, startSanitized());
  const { manager, worker } = machine;
  const device = Buffer.alloc(40);
  device.write("rng");
  const add = Buffer.concat([words(0, wire("KIND_RNG"), MMIO_BASE, 5, 0, 0, 0), device]);
  await manager.succeed(wire("DEVICE_ADD"), add);
  await machine.start();
  while (!machine.console().includes(".")) await Bun.sleep(1);
  await manager.succeed(wire("VCPU_LIMIT"), words(2, 0));
  await manager.succeed(wire("PAUSE"));
  const saved = decodeSections(await manager.succeed(wire("VCPU_GET"), words(0, 0)));
  saved.delete(wire("VCPU_CPUID"));
  const sections = [...saved].map(([kind, content]) => section(kind, content));
  await manager.succeed(wire("VCPU_PUT"), Buffer.concat([words(0, 0), ...sections]));
  await manager.succeed(wire("MACHINE_PUT"), await manager.succeed(wire("MACHINE_GET")));
  await manager.succeed(wire("DEVICE_GET"), words(0, 0));
  await manager.succeed(wire("RESUME"));
  await manager.succeed(wire("DEVICE_REMOVE"), words(0, 0));
  await manager.succeed(wire("METRICS"));
  await manager.succeed(wire("STOP"));
  expect(await worker.ended()).toEqual({ code: 0 });
  expect(worker.log).toBe("");
});

/** Numbers from 0 to `below`, the same for the same seed (xorshift32). */
function randomSource(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

type Random = (below: number) => number;

/** Something at all, of numbers at which limits tend to be. */
function noise(random: Random): Buffer {
  const limits = [0, 1, 2, 4, 16, 64, 255, 4096, 0x1f_f000, Number(MMIO_BASE), 0x7fff_ffff, 0xffff_ffff];
  const word = () => (random(3) === 0 ? random(0xffff_ffff) : (limits[random(limits.length)] ?? 0));
  const bytes = words(...Array.from({ length: random(24) }, word));
  return bytes.subarray(0, bytes.length - (random(4) === 0 ? random(4) : 0));
}

const kinds = ["NET", "BLOCK", "CONSOLE", "RNG", "BALLOON", "VSOCK", "MEM", "PMEM"].map((kind) =>
  wire(`KIND_${kind}`),
);
/** Bytes of the structures hako_net … hako_pmem. */
const settings = [80, 64, 8, 0, 8, 8, 40, 32];

function deviceAdd(random: Random): Buffer {
  const index = random(kinds.length);
  const [slot, gsi] = [random(3), 5 + random(2)];
  const gpa = MMIO_BASE + BigInt(slot * 4096);
  const name = Buffer.alloc(40);
  name.write("device");
  const content = random(2) ? Buffer.alloc(settings[index] ?? 0, random(2)) : noise(random);
  return Buffer.concat([words(slot, kinds[index] ?? 0, gpa, gsi, 0, random(2) * 8, 0), name, content]);
}

/** Requests that may well be carried out, by type; the others take nothing. */
const plausible = new Map<number, (random: Random) => Buffer>([
  [wire("MACHINE_CREATE"), (random) => machineCreate(1 + random(3), 1)],
  [
    wire("MEMORY_ADD"),
    (random) => memoryAdd(random(4), BigInt(random(4)) << 21n, BigInt(1 + random(512)) << 12n, random(9)),
  ],
  [
    wire("MEMORY_WRITE"),
    (random) => Buffer.concat([words(BigInt(random(4 << 20))), Buffer.alloc(random(9000), 0xf4)]),
  ],
  [wire("MEMORY_LOAD"), (random) => words(BigInt(random(4 << 20)), 0n, BigInt(random(4096)))],
  [wire("MEMORY_SAVE"), (random) => words(random(4), 0, 0n)],
  [
    wire("VCPU_PUT"),
    (random) => {
      const sizes = [40, 8, 8, 144, 312, 4096, 392, 128, 1024, 32, 64, 416];
      const kind = random(sizes.length);
      return Buffer.concat([words(0, 0), section(kind + 1, Buffer.alloc(sizes[kind] ?? 0, random(2)))]);
    },
  ],
  [wire("VCPU_GET"), () => words(0, 0)],
  [wire("MACHINE_PUT"), (random) => section(36, words(1, random(0xffff_ffff), random(0xffff_ffff), 0))],
  [wire("DEVICE_ADD"), deviceAdd],
  [wire("DEVICE_REMOVE"), (random) => words(random(3), 0)],
  [wire("DEVICE_UPDATE"), (random) => Buffer.concat([words(random(3), 0), noise(random)])],
  [wire("DEVICE_GET"), (random) => words(random(3), 0)],
  [wire("DEVICE_PUT"), (random) => Buffer.concat([words(random(3), 0), noise(random)])],
  [wire("VCPU_LIMIT"), (random) => words(1 + random(3), 0)],
  [wire("INTERRUPT"), (random) => words(random(24), 0)],
]);

sanitizerTest(
  "no message of the manager crashes it, in any order",
  async () => {
    using kvm = openFd("/dev/kvm", O.RDWR);
    const carriedOut = new Map<number, number>();
    for (let round = 1; round <= ROUNDS; round++) {
      const random = randomSource(round * 0x9e37);
      // Every fourth round begins with nothing, the others with a machine, since noise alone would hardly make one.
      await using worker = startSanitized();
      const machine =
        round % 4 ? await TestMachine.create(spin, { vcpus: 3, running: 1 }, worker) : undefined;
      using manager = machine?.manager ?? (await worker.connect());
      for (let i = 0; i < MESSAGES_A_ROUND; i++) {
        const type = random(wire("METRICS") + 1);
        const payload = random(8) ? (plausible.get(type)?.(random) ?? Buffer.alloc(0)) : noise(random);
        using file = memfd("noise", Buffer.alloc(8192));
        const takesFile = [wire("MEMORY_LOAD"), wire("MEMORY_SAVE")].includes(type) || random(6) === 0;
        const fds = type === wire("MACHINE_CREATE") ? [kvm.number] : takesFile ? [file.number] : [];
        try {
          manager.sendRaw(encodeMessage(type, 1000 + i, payload), fds);
        } catch (error) {
          // The guest has ended meanwhile; the event that says so is still to be read.
          if (!isErrno(error, E.EPIPE)) throw error;
        }
        let reply = await manager.receive();
        while (reply?.id === 0 && reply.type !== wire("EVENT_EXIT")) reply = await manager.receive();
        if (!reply) break;
        if (reply.type === wire("EVENT_EXIT")) {
          // A guest of noise may end; that has a reason other than a fault of the worker.
          expect(reply.payload.readUInt32LE(0)).not.toBe(wire("EXIT_WORKER_FAULT"));
          break;
        }
        if (reply.status === 0) carriedOut.set(type, (carriedOut.get(type) ?? 0) + 1);
      }
      expect(`round ${round}: ${worker.log}`).toBe(`round ${round}: `);
    }
    // The noise got far: nearly every kind of request was carried out at some time.
    expect(carriedOut.size).toBeGreaterThan(15);
  },
  120_000,
);
