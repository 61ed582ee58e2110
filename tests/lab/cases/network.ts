/** Endpoints of the kinds that not every kernel has; Debian's has them all. */
import { expect } from "bun:test";
import { lookupLink } from "#linux/netlink/link.ts";
import { NetworkNamespace } from "#linux/netlink/namespace.ts";
import { addIngress, addRedirect } from "#linux/netlink/traffic-control.ts";
import { endpointContract } from "../../contract/endpoint.ts";
import { linkSubject } from "../../support/endpoint-subjects.ts";
import { TestNamespace } from "../../support/network-namespace.ts";
import { rootTest } from "../../support/skip.ts";

endpointContract(linkSubject("vlan", "tcfilter", rootTest));
endpointContract(linkSubject("vlan", "macvtap", rootTest));
endpointContract(linkSubject("ipvlan", "tcfilter", rootTest));
endpointContract(linkSubject("macvlan", "macvtap", rootTest));

rootTest("a matchall filter redirects, as tc sees it", async () => {
  await using pod = await TestNamespace.create();
  using namespace = NetworkNamespace.open(pod.path);
  pod.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1");
  const [from, to] = ["eth0", "eth1"].map((name) => lookupLink(namespace.socket, name).index);
  addIngress(namespace.socket, from ?? 0);
  addRedirect(namespace.socket, from ?? 0, to ?? 0, "matchall");
  const shown = pod.run("tc", "filter", "show", "dev", "eth0", "ingress");
  expect(shown).toContain("matchall");
  expect(shown).toContain("Egress Redirect to device eth1");
});
