/** A policy in a virtual machine: the guest refuses what its host asks for. */
import { expect } from "bun:test";
import { HakoHost, MACHINE_TIMEOUT_MS, machineTest } from "../support/hako-host.ts";
import { busyboxImage } from "../support/images.ts";

machineTest(
  "a guest that is told so runs no further processes in its containers",
  async () => {
    using host = new HakoHost();
    host.configure('[hypervisor.qemu]\nkernel_params = "hako.policy=allow-all-except-exec"\n');
    const image = await busyboxImage("oci");
    const started = await host.run([
      "run",
      "-d",
      "--name",
      "guarded",
      image,
      "sh",
      "-c",
      "echo up; sleep 1000",
    ]);
    expect(started).toMatchObject({ code: 0, stderr: "" });
    const denied = await host.run(["exec", "guarded", "true"]);
    expect(denied.code).toBe(126);
    expect(denied.stderr).toContain("ExecProcessRequest is blocked by policy");
    expect((await host.run(["pause", "guarded"])).code).toBe(0);
    expect((await host.run(["rm", "-f", "guarded"])).code).toBe(0);
    expect(host.leftovers()).toEqual([]);
  },
  MACHINE_TIMEOUT_MS,
);

machineTest(
  "a guest with a policy that is not there does not come up, and its console says why",
  async () => {
    using host = new HakoHost();
    host.configure(
      '[hypervisor.qemu]\nkernel_params = "hako.policy=/no/policy.rego"\n[agent.kata]\nreconnect_timeout_ms = 20000\n',
    );
    const { code, stderr } = await host.run(["run", "--rm", await busyboxImage("oci"), "true"]);
    expect(code).toBe(125);
    expect(stderr).toContain('Cannot read policy "/no/policy.rego"');
    expect(host.leftovers()).toEqual([]);
  },
  MACHINE_TIMEOUT_MS,
);
