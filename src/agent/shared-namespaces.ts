import { HakoError } from "#base/error.ts";
import { createNamespace, setHostname } from "#linux/namespace.ts";
import type { LinuxNamespace } from "#proto/oci.ts";
import { type Fd, O, openFd } from "#sys/fd.ts";

/** Namespaces that only make sense as new ones of the container: the host's paths mean nothing here. */
const ownKinds: ReadonlySet<string> = new Set(["mount", "network", "user", "cgroup", "time"]);

/** The namespaces that all containers of a sandbox share: ipc and uts from the start, pid by the first container. */
export class SharedNamespaces implements Disposable {
  readonly #ipc: Fd;
  readonly #uts: Fd;
  #pid: Fd | undefined;

  /** `hostname` may be empty: the name stays the guest's. */
  constructor(hostname: string) {
    this.#ipc = createNamespace("ipc");
    this.#uts = createNamespace("uts", () => {
      if (hostname !== "") setHostname(hostname);
    });
  }

  /** Lets later containers join the pid namespace of this process; the first caller wins. */
  sharePid(pid: number): void {
    this.#pid ??= openFd(`/proc/${pid}/ns/pid`, O.RDONLY);
  }

  get hasPid(): boolean {
    return this.#pid !== undefined;
  }

  pathOf(kind: string): string {
    const fd =
      kind === "ipc" ? this.#ipc : kind === "uts" ? this.#uts : kind === "pid" ? this.#pid : undefined;
    return fd ? `/proc/self/fd/${fd.number}` : "";
  }

  [Symbol.dispose](): void {
    this.#ipc.close();
    this.#uts.close();
    this.#pid?.close();
  }
}

/**
 * The namespaces of a container as it gets them in the guest: ipc and uts are the sandbox's wherever the container
 * asks for its own, pid is its own or the sandbox's, and it is always there. Paths of other kinds are refused.
 */
export function placeNamespaces(
  namespaces: readonly LinuxNamespace[],
  shared: SharedNamespaces | undefined,
  sharePid: boolean,
): LinuxNamespace[] {
  const placed = namespaces
    .filter(({ Type }) => Type !== "pid")
    .map(({ Type, Path }) => {
      if (Type === "ipc" || Type === "uts") return { Type, Path: shared?.pathOf(Type) ?? "" };
      if (!ownKinds.has(Type))
        throw new HakoError("INVALID_ARGUMENT", `Cannot use a namespace of type "${Type}"`);
      if (Path !== "") {
        throw new HakoError(
          "INVALID_ARGUMENT",
          `Cannot join the ${Type} namespace "${Path}": it is not of this guest`,
        );
      }
      return { Type, Path };
    });
  if (!placed.some(({ Type }) => Type === "mount")) {
    throw new HakoError("INVALID_ARGUMENT", "Cannot run a container without a mount namespace of its own");
  }
  return [...placed, { Type: "pid", Path: sharePid ? (shared?.pathOf("pid") ?? "") : "" }];
}
