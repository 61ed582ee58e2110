import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { hasVirtualisation, probeKvm } from "#linux/kvm-kind.ts";

let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "hako-kvm-"));
});
afterAll(() => rmSync(directory, { recursive: true }));

test("a host without the device has no KVM", () => {
  expect(probeKvm(join(directory, "missing"))).toMatchObject({ kind: "absent" });
});

test("something else in the device's place is broken", () => {
  const path = join(directory, "file");
  writeFileSync(path, "");
  expect(probeKvm(path)).toEqual({ kind: "broken", detail: `"${path}" is not KVM: it answers ENOTTY` });
  expect(probeKvm(directory)).toMatchObject({ kind: "broken" });
});

test("a device that this user may not open is forbidden", () => {
  // sysfs refuses to open a read-only attribute for writing, to root too.
  expect(probeKvm("/sys/kernel/uevent_seqnum")).toMatchObject({ kind: "forbidden" });
});

test("KVM without svm or vmx is the software kind", () => {
  const info = (flags: string) => {
    const path = join(directory, "cpuinfo");
    writeFileSync(path, `processor\t: 0\nvendor_id\t: x\nflags\t\t: fpu ${flags} sse2\nbugs\t\t: vmx\n`);
    return path;
  };
  expect(hasVirtualisation(info("svm"))).toBe(true);
  expect(hasVirtualisation(info("vmx"))).toBe(true);
  expect(hasVirtualisation(info("vmxnet svm_lock"))).toBe(false);
});
