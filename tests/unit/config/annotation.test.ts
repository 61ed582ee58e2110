import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { annotatedHypervisor, applyAnnotations } from "#config/annotation.ts";
import { type Config, DEFAULT_CONFIG } from "#config/config.ts";

const P = "io.katacontainers.config";

let dir: string;
beforeAll(() => {
  dir = realpathSync(mkdtempSync(join(tmpdir(), "hako-annotation-")));
  writeFileSync(join(dir, "qemu-good"), "");
  writeFileSync(join(dir, "elsewhere"), "");
  symlinkSync(join(dir, "elsewhere"), join(dir, "qemu-link"));
});
afterAll(() => rmSync(dir, { recursive: true }));

function allowing(...enableAnnotations: string[]): Config {
  const qemu = {
    ...DEFAULT_CONFIG.hypervisor.qemu,
    enableAnnotations,
    validHypervisorPaths: [`${dir}/qemu-*`],
  };
  return { ...DEFAULT_CONFIG, hypervisor: { ...DEFAULT_CONFIG.hypervisor, qemu } };
}

async function apply(name: string, value: string, config = allowing(".*")): Promise<Config> {
  return applyAnnotations(config, { [`${P}.${name}`]: value }, "qemu");
}

describe("applyAnnotations()", () => {
  test("without any of Kata's nothing changes", async () => {
    const config = await applyAnnotations(DEFAULT_CONFIG, { "io.kubernetes.cri.sandbox-id": "a" }, "qemu");
    expect(config).toBe(DEFAULT_CONFIG);
  });

  test.each([
    ["hypervisor.default_vcpus", "2", { defaultVcpus: 2 }],
    ["hypervisor.default_memory", "512", { defaultMemory: 512 }],
    ["hypervisor.default_memory", "2Gi", { defaultMemory: 2048 }],
    ["hypervisor.default_max_vcpus", "8", { defaultMaxvcpus: 8 }],
    ["hypervisor.kernel_params", "a=1 b", { kernelParams: "a=1 b" }],
    ["hypervisor.blk_logical_sector_size", "512", { blockDeviceLogicalSectorSize: 512 }],
    ["hypervisor.cc_init_data", "AAAA", { initdata: "AAAA" }],
    ["hypervisor.enable_iommu", "true", { enableIommu: true }],
    ["hypervisor.virtio_fs_extra_args", '["-o", "x"]', { virtioFsExtraArgs: ["-o", "x"] }],
  ])("%s = %s", async (name, value, expected) => {
    expect((await apply(name, value)).hypervisor.qemu).toMatchObject(expected);
  });

  test("those of runtime and agent need no gate", async () => {
    const none = allowing();
    expect((await apply("runtime.internetworking_model", "macvtap", none)).runtime.internetworkingModel).toBe(
      "macvtap",
    );
    expect(
      (await apply("runtime.create_container_timeout", "90", none)).agent.kata.createContainerTimeout,
    ).toBe(90);
    expect((await apply("agent.kernel_modules", "a b=1;c", none)).agent.kata.kernelModules).toEqual([
      "a b=1",
      "c",
    ]);
    expect((await apply("agent.cdh_api_timeout_ms", "5", none)).agent.kata.cdhApiTimeoutMs).toBe(5);
  });

  test("another hypervisor's table stays as it is", async () => {
    const config = await apply("hypervisor.default_vcpus", "3");
    expect(config.hypervisor.clh).toBe(DEFAULT_CONFIG.hypervisor.clh);
  });

  test("Kata's constants without effect change nothing", async () => {
    const config = allowing(".*");
    expect(await apply("hypervisor.kernel_hash", "abc", config)).toBe(config);
  });

  test("an entry of enable_annotations must match the whole name", async () => {
    const iommu = allowing("enable_iommu");
    expect((await apply("hypervisor.enable_iommu", "true", iommu)).hypervisor.qemu.enableIommu).toBe(true);
    const refused = apply("hypervisor.enable_iommu_platform", "true", iommu);
    await expect(refused).rejects.toMatchObject({ code: "PERMISSION_DENIED" });
    await expect(refused).rejects.toThrow(
      '"io.katacontainers.config.hypervisor.enable_iommu_platform" is not allowed',
    );
    await expect(apply("hypervisor.default_vcpus", "2", allowing("vcpus"))).rejects.toThrow("is not allowed");
    await expect(apply("hypervisor.default_vcpus", "2", allowing("a|default_vcpus"))).resolves.toBeDefined();
  });

  test.each([
    ["hypervisor.default_vcpus", "two", "expected a number from -1 to 256"],
    ["hypervisor.default_memory", "1", "expected a whole number of MiB from 128"],
    ["hypervisor.enable_iommu", "perhaps", "expected true or false"],
    ["runtime.internetworking_model", "bridge", 'expected one of "tcfilter"'],
    ["runtime.shared_mounts", "[{}]", "expected tables with"],
    ["runtime.shared_mounts", "[", "expected tables with"],
    ["runtime.sandbox_bind_mounts", '["/etc"]', "is unknown"],
    ["hypervisor.defualt_vcpus", "2", 'did you mean "io.katacontainers.config.hypervisor.default_vcpus"?'],
    ["nothing.at_all", "2", "is unknown"],
  ])("a bad one is an error: %s = %s", async (name, value, message) => {
    const attempt = apply(name, value);
    await expect(attempt).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
    await expect(attempt).rejects.toThrow(message);
  });

  test("a bad pattern is an error of its own, not an open gate", async () => {
    const attempt = apply("hypervisor.default_vcpus", "2", allowing("(", "default_vcpus"));
    await expect(attempt).rejects.toThrow('has "(", which is no regular expression');
  });

  test("a path must match valid_hypervisor_paths, and so must what it leads to", async () => {
    const good = join(dir, "qemu-good");
    expect((await apply("hypervisor.path", good)).hypervisor.qemu.path).toBe(good);
    const denied = { code: "PERMISSION_DENIED" };
    await expect(apply("hypervisor.path", join(dir, "elsewhere"))).rejects.toMatchObject(denied);
    await expect(apply("hypervisor.path", join(dir, "qemu-link"))).rejects.toMatchObject(denied);
    await expect(apply("hypervisor.path", `${dir}/qemu-x/../elsewhere`)).rejects.toMatchObject(denied);
    await expect(apply("hypervisor.path", "qemu-good")).rejects.toMatchObject(denied);
    await expect(apply("hypervisor.path", join(dir, "qemu-missing"))).rejects.toThrow("cannot be found");
    await expect(apply("hypervisor.jailer_path", "/bin/true")).rejects.toMatchObject(denied);
    await expect(apply("hypervisor.kernel", "/bin/true")).rejects.toMatchObject(denied);
  });

  test("the hypervisor can be asked for", () => {
    expect(annotatedHypervisor({ [`${P}.runtime.hypervisor_name`]: "qemu" })).toBe("qemu");
    expect(annotatedHypervisor({})).toBeUndefined();
  });
});
