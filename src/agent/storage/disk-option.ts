/** Kata's own options, which tell the agent something and are no file system's. */
const OWN_PREFIX = "X-kata.";

/** What is left for the mount. */
export function plainOptions(options: readonly string[]): string[] {
  return options.filter((option) => !option.startsWith(OWN_PREFIX));
}

/** The value of one of Kata's own options; "" when it is there without one. */
export function ownOption(options: readonly string[], name: string): string | undefined {
  const key = `${OWN_PREFIX}${name}`;
  const found = options.find((option) => option === key || option.startsWith(`${key}=`));
  return found === undefined ? undefined : found.slice(key.length + 1);
}

/** A name for the device over the n-th disk of a mount point, unlike that of any other mount point. */
export function mappedName(mountPoint: string, index: number): string {
  const digest = new Bun.CryptoHasher("sha256").update(mountPoint).digest("hex");
  return `hako-${digest.slice(0, 24)}-${index}`;
}
