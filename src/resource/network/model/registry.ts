import { l3forwardingModel } from "./l3forwarding.ts";
import { macvtapModel } from "./macvtap.ts";
import type { ModelName, NetworkModel } from "./model.ts";
import { tcfilterModel } from "./tcfilter.ts";

const noneModel: NetworkModel = { name: "none", connect: () => undefined };

const MODELS: Readonly<Record<ModelName, NetworkModel>> = {
  tcfilter: tcfilterModel,
  macvtap: macvtapModel,
  l3forwarding: l3forwardingModel,
  none: noneModel,
};

export function lookupModel(name: ModelName): NetworkModel {
  return MODELS[name];
}
