import { expect } from "bun:test";
import { openMasquerade } from "#linux/netlink/masquerade.ts";
import { writeNetworkSysctl } from "#linux/network-sysctl.ts";
import { TestNamespace } from "../support/network-namespace.ts";
import { rootTest } from "../support/skip.ts";

/** A client whose router knows the way out, while nobody outside knows the way back. */
async function prepare(stack: AsyncDisposableStack) {
  const [client, router, outside] = [
    stack.use(await TestNamespace.create()),
    stack.use(await TestNamespace.create()),
    stack.use(await TestNamespace.create()),
  ];
  const pid = /\d+/.exec(router.path)?.[0] ?? "";
  client.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "inside0", "netns", pid);
  outside.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "outside0", "netns", pid);
  for (const [namespace, link, address] of [
    [client, "eth0", "10.1.2.6/30"],
    [router, "inside0", "10.1.2.5/30"],
    [router, "outside0", "192.0.2.1/24"],
    [outside, "eth0", "192.0.2.2/24"],
  ] as const) {
    namespace.run("ip", "address", "add", address, "dev", link);
    namespace.run("ip", "link", "set", link, "up");
  }
  client.run("ip", "route", "add", "default", "via", "10.1.2.5");
  writeNetworkSysctl(router.namespace.number, "ipv4/ip_forward", "1");
  const reaches = () =>
    client.exec("busybox", "ping", "-c1", "-W1", "-w2", "192.0.2.2").then(
      () => true,
      () => false,
    );
  return { router, outside, reaches };
}

rootTest("a network's packets get the router's address, as long as the masquerade is held", async () => {
  await using stack = new AsyncDisposableStack();
  const { router, reaches } = await prepare(stack);
  const spec = { name: "hako-test", exceptLink: "inside0", namespaceFd: router.namespace.number };
  const source = { address: "10.1.2.6", prefixLength: 30 };
  expect(await reaches()).toBe(false);
  {
    using _masquerade = openMasquerade({ ...spec, source });
    expect(await reaches()).toBe(true);
    expect(() => openMasquerade({ ...spec, source })).toThrow(
      expect.objectContaining({ code: "PERMISSION_DENIED" }),
    );
  }
  // The kernel has taken the table away with its owner's socket.
  using _again = openMasquerade({ ...spec, source });
});

rootTest("another network keeps its addresses", async () => {
  await using stack = new AsyncDisposableStack();
  const { router, reaches } = await prepare(stack);
  using _masquerade = openMasquerade({
    name: "hako-test",
    source: { address: "10.1.2.0", prefixLength: 30 },
    exceptLink: "inside0",
    namespaceFd: router.namespace.number,
  });
  expect(await reaches()).toBe(false);
});
