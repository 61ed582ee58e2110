/** What a container is to its pod. */
export type ContainerType =
  /** It has a sandbox of its own and goes with it. */
  | { readonly kind: "single" }
  /** The first of a pod: it stands for the sandbox. */
  | { readonly kind: "sandbox" }
  /** It joins the sandbox of this id. */
  | { readonly kind: "container"; readonly sandboxId: string };

type Annotations = Readonly<Record<string, string>>;

/** Type, sandbox and the word for "sandbox", as each CRI implementation writes them. */
const DIALECTS = [
  {
    type: "io.kubernetes.cri.container-type",
    sandboxId: "io.kubernetes.cri.sandbox-id",
  },
  {
    type: "io.kubernetes.cri-o.ContainerType",
    sandboxId: "io.kubernetes.cri-o.SandboxID",
  },
] as const;

export function containerType(annotations: Annotations | undefined): ContainerType {
  for (const dialect of DIALECTS) {
    const type = annotations?.[dialect.type];
    if (type === "sandbox") return { kind: "sandbox" };
    const sandboxId = annotations?.[dialect.sandboxId];
    if (type === "container" && sandboxId) return { kind: "container", sandboxId };
  }
  return { kind: "single" };
}

/** The image's name where the CRI implementation notes it; empty otherwise. */
export function imageName(annotations: Annotations | undefined): string {
  return (
    annotations?.["io.kubernetes.cri.image-name"] ?? annotations?.["io.kubernetes.cri-o.ImageName"] ?? ""
  );
}
