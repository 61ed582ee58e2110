import { parseSignal } from "#oci/signal.ts";
import type { BundleSpec, ContainerSpec } from "#runtime/container.ts";
import type { ContainerState } from "#runtime/state.ts";
import type { ContainerPlan } from "./container.ts";

/** What is on disk about a container that is being made. */
export function describeContainer(
  request: ContainerSpec | BundleSpec,
  { spec, resources: { image } }: ContainerPlan,
): ContainerState {
  return {
    id: request.id,
    image: "image" in request ? request.image : request.imageName,
    imageDigest: image.digest,
    args: spec.process?.args ?? [],
    terminal: spec.process?.terminal ?? false,
    stopSignal: checkStopSignal(image.config.StopSignal || "SIGTERM"),
    createdAt: new Date().toISOString(),
    status: "creating",
  };
}

/** An image with a signal that there is none of is refused now, not when somebody wants to stop the container. */
function checkStopSignal(text: string): string {
  parseSignal(text);
  return text;
}
