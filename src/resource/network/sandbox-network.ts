import { NetworkNamespace } from "#linux/netlink/namespace.ts";
import type { AttachedInterface, AttachmentFile } from "./attachment-file.ts";
import type { Endpoint, EndpointOptions } from "./endpoint/endpoint.ts";
import { openEndpoint } from "./endpoint/registry.ts";
import { openTapEndpoint } from "./endpoint/tap.ts";
import { openVhostUserEndpoint } from "./endpoint/vhost-user.ts";
import { scanNamespace } from "./scan.ts";

/**
 * All interfaces of a sandbox's network namespace, ready for its machine. {@link scan} finds those that are there, and,
 * called again, those that came later; whoever calls it gives each new endpoint to the machine and the guest. Disposing
 * releases all endpoints, the last opened first, and the namespace.
 */
export class SandboxNetwork implements Disposable {
  readonly namespace: NetworkNamespace;
  readonly #options: EndpointOptions;
  readonly #stack = new DisposableStack();
  readonly #seen = new Set<number>();

  private constructor(namespace: NetworkNamespace, options: EndpointOptions) {
    this.namespace = this.#stack.use(namespace);
    this.#options = options;
  }

  /** Throws NOT_FOUND or FAILED_PRECONDITION for a path that is no network namespace. */
  static open(path: string, options: EndpointOptions): SandboxNetwork {
    return new SandboxNetwork(NetworkNamespace.open(path), options);
  }

  /** Opens the interfaces that no earlier call has found. On failure none of the new ones is left. */
  scan(): Endpoint[] {
    using stack = new DisposableStack();
    const fresh = scanNamespace(this.namespace.socket).filter(({ link }) => !this.#seen.has(link.index));
    const endpoints = fresh.flatMap((found) => {
      const endpoint = openEndpoint(this.namespace, found, this.#options);
      return endpoint === undefined ? [] : [stack.use(endpoint)];
    });
    for (const { link } of fresh) this.#seen.add(link.index);
    this.#stack.use(stack.move());
    return endpoints;
  }

  /** Opens the interfaces that a file names. On failure none of them is left. */
  attach({ interfaces }: AttachmentFile): Endpoint[] {
    using stack = new DisposableStack();
    const endpoints = interfaces.map((attached) => stack.use(this.#attach(attached)));
    this.#stack.use(stack.move());
    return endpoints;
  }

  [Symbol.dispose](): void {
    this.#stack.dispose();
  }

  #attach({ device, guest }: AttachedInterface): Endpoint {
    if (device.type === "vhost-user") return openVhostUserEndpoint(device.path, device.queues, guest);
    const endpoint = openTapEndpoint(this.namespace, device.tapName, device.queues, guest);
    if (endpoint.linkIndex !== undefined) this.#seen.add(endpoint.linkIndex);
    return endpoint;
  }
}
