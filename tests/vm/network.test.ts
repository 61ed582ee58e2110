/** A container with the interfaces of a prepared network namespace, as a CNI plug-in makes it. */
import { afterAll, describe, expect } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { findNameServers } from "#resource/network/name-servers.ts";
import { HakoHost, MACHINE_TIMEOUT_MS, machineTest } from "../support/hako-host.ts";
import { busyboxImage } from "../support/images.ts";
import { TestNamespace } from "../support/network-namespace.ts";
import { testIf } from "../support/skip.ts";
import { tapMissing } from "../support/tap.ts";

const missing = tapMissing();
const test = missing === undefined ? machineTest : testIf(false, missing);

const host = new HakoHost();
afterAll(() => host[Symbol.dispose]());

/** Two interfaces of a pod, whose other ends are in another namespace, which also has a network behind itself. */
async function preparePod(stack: AsyncDisposableStack): Promise<TestNamespace> {
  const pod = stack.use(await TestNamespace.create());
  const outside = stack.use(await TestNamespace.create());
  const podPid = /\d+/.exec(pod.path)?.[0] ?? "";
  for (const [index, network] of [
    [0, "192.0.2"],
    [1, "198.51.100"],
  ] as const) {
    const peer = ["peer", "name", `eth${index}`, "mtu", "1400", "netns", podPid];
    outside.run("ip", "link", "add", `peer${index}`, "mtu", "1400", "type", "veth", ...peer);
    outside.run("ip", "address", "add", `${network}.1/24`, "dev", `peer${index}`);
    outside.run("ip", "link", "set", `peer${index}`, "up");
    pod.run("ip", "address", "add", `${network}.2/24`, "dev", `eth${index}`);
    pod.run("ip", "link", "set", `eth${index}`, "up");
  }
  outside.run("ip", "link", "set", "lo", "up");
  outside.run("ip", "address", "add", "203.0.113.1/32", "dev", "lo");
  outside.run("ip", "-6", "address", "add", "fd00:db8::1/64", "dev", "peer0", "nodad");
  pod.run("ip", "-6", "address", "add", "fd00:db8::2/64", "dev", "eth0", "nodad");
  pod.run("ip", "route", "add", "default", "via", "192.0.2.1");
  return pod;
}

/** What the network of a container could change, and that does not change by itself. */
function describePod(pod: TestNamespace): string {
  const links = pod.ip<{ ifname: string }[]>("link", "show").map(({ ifname }) => ifname);
  return [links.join(" "), pod.run("ip", "-4", "-o", "address"), pod.run("tc", "qdisc", "show")].join("\n");
}

const script = `
ip -4 -o addr show dev eth0 | grep -o '192.0.2.2/24'; ip -4 -o addr show dev eth1 | grep -o '198.51.100.2/24'
cat /sys/class/net/eth0/mtu; ip route | grep -o 'default via 192.0.2.1'
for target in 203.0.113.1 198.51.100.1 fd00:db8::1; do ping -c1 -w20 $target | grep -o ' 0% packet loss'; done
ping -c1 -w20 -s 1372 192.0.2.1 | grep -o ' 0% packet loss'`;

describe("--net netns", () => {
  for (const model of ["tcfilter", "macvtap"]) {
    test(
      `gives a container the namespace's interfaces by ${model}, and leaves the namespace as it was`,
      async () => {
        await using stack = new AsyncDisposableStack();
        const pod = await preparePod(stack);
        const file = join(host.dir, `${model}.toml`);
        writeFileSync(file, `[runtime]\ninternetworking_model = "${model}"\n`);
        const before = describePod(pod);
        const image = await busyboxImage("oci");
        const words = ["run", "--rm", "--net", `netns:${pod.path}`, image, "sh", "-c", script];
        const { stdout, stderr, code } = await host.run(words, { env: { HAKO_CONFIG_FILE: file } });
        expect({ stderr, code }).toEqual({ stderr: "", code: 0 });
        expect(stdout.trim().split("\n")).toEqual([
          "192.0.2.2/24",
          "198.51.100.2/24",
          "1400",
          "default via 192.0.2.1",
          ...Array(4).fill(" 0% packet loss"),
        ]);
        expect(describePod(pod)).toBe(before);
        expect(host.leftovers()).toEqual([]);
      },
      MACHINE_TIMEOUT_MS,
    );
  }

  test(
    "names a namespace that is not there, and leaves nothing",
    async () => {
      const image = await busyboxImage("oci");
      const words = ["run", "--rm", "--net", "netns:/run/netns/no-such", image, "true"];
      const { stderr, code } = await host.run(words);
      expect(code).toBe(125);
      expect(stderr).toContain('Cannot open network namespace "/run/netns/no-such"');
      expect(host.leftovers()).toEqual([]);
    },
    MACHINE_TIMEOUT_MS,
  );
});

describe("--net nat", () => {
  test(
    "reaches what the host reaches, under the host's address, and has its name servers",
    async () => {
      await using outside = await TestNamespace.create();
      const name = `hkt${process.pid % 100_000}`;
      const { exitCode } = Bun.spawnSync(
        ["ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns"].concat(
          /\d+/.exec(outside.path)?.[0] ?? "",
        ),
      );
      expect(exitCode).toBe(0);
      Bun.spawnSync(["ip", "address", "add", "198.18.77.1/24", "dev", name]);
      Bun.spawnSync(["ip", "link", "set", name, "up"]);
      outside.run("ip", "address", "add", "198.18.77.2/24", "dev", "eth0");
      outside.run("ip", "link", "set", "eth0", "up");
      const image = await busyboxImage("oci");
      const words = [
        "ping -c1 -w20 198.18.77.2 | grep -o ' 0% packet loss'",
        "cat /etc/resolv.conf 2>/dev/null",
      ];
      const outcome = await host.run(["run", "--rm", "--net", "nat", image, "sh", "-c", words.join("; ")]);
      const servers = findNameServers() ?? "";
      expect(outcome.stdout).toBe(` 0% packet loss\n${servers}`);
      expect(host.leftovers()).toEqual([]);
    },
    MACHINE_TIMEOUT_MS,
  );
});
