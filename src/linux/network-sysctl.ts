import { HakoError } from "#base/error.ts";
import { findText, writeText } from "./file.ts";
import { insideNetwork } from "./network-namespace.ts";

/**
 * Sets `net.<name>` of a network namespace; `name` with slashes, as `ipv4/conf/eth0/proxy_arp`. Where `optional`, a
 * kernel without the setting is passed over. Throws FAILED_PRECONDITION naming the setting.
 */
export function writeNetworkSysctl(
  namespaceFd: number,
  name: string,
  value: string,
  { optional = false }: { readonly optional?: boolean } = {},
): void {
  const path = `/proc/sys/net/${name}`;
  insideNetwork(namespaceFd, () => {
    const present = findText(path);
    if (present?.trim() === value || (present === undefined && optional)) return;
    try {
      writeText(path, value);
    } catch (cause) {
      throw new HakoError(
        "FAILED_PRECONDITION",
        `Cannot set "net.${name.replaceAll("/", ".")}" to ${value}`,
        {
          cause,
        },
      );
    }
  });
}

/** Undefined when the kernel has no such setting. */
export function findNetworkSysctl(namespaceFd: number, name: string): string | undefined {
  return insideNetwork(namespaceFd, () => findText(`/proc/sys/net/${name}`)?.trim());
}
