import { HakoError } from "#base/error.ts";
import type { DeviceRate, IoResources } from "#linux/cgroup/resources.ts";
import type { ControlSetting, HasControlFile } from "./control-file.ts";

const WEIGHT_MIN = 10;
const WEIGHT_MAX = 1000;

function checkWeight(weight: number): number {
  if (weight >= WEIGHT_MIN && weight <= WEIGHT_MAX) return weight;
  throw new HakoError(
    "INVALID_ARGUMENT",
    `Cannot use block I/O weight ${weight}: it must lie between ${WEIGHT_MIN} and ${WEIGHT_MAX}`,
  );
}

/** BFQ keeps v1's range; io.weight of the cost model maps 10…1000 to 1…10000 in a straight line. */
function weightFile(has: HasControlFile): { file: string; convert: (weight: number) => number } {
  if (has("io.bfq.weight")) return { file: "io.bfq.weight", convert: (weight) => weight };
  return { file: "io.weight", convert: (weight) => 1 + Math.floor(((weight - WEIGHT_MIN) * 9999) / 990) };
}

function refuseLeafWeight(weight: number | undefined): void {
  if (weight) throw new HakoError("INVALID_ARGUMENT", "Cannot set a leaf weight: cgroup v2 has none");
}

function weightSettings(io: IoResources, has: HasControlFile): ControlSetting[] {
  const { file, convert } = weightFile(has);
  const settings: ControlSetting[] = [];
  refuseLeafWeight(io.leafWeight);
  if (io.weight) settings.push({ controller: "io", file, value: String(convert(checkWeight(io.weight))) });
  for (const device of io.deviceWeights ?? []) {
    refuseLeafWeight(device.leafWeight);
    const value = `${device.major}:${device.minor} ${convert(checkWeight(device.weight))}`;
    settings.push({ controller: "io", file, value });
  }
  return settings;
}

function rateSettings(key: string, rates: readonly DeviceRate[] | undefined): ControlSetting[] {
  return (rates ?? []).map(({ major, minor, rate }) => ({
    controller: "io",
    file: "io.max",
    value: `${major}:${minor} ${key}=${rate === 0n ? "max" : rate}`,
  }));
}

/** io.weight or io.bfq.weight, and io.max (Documentation/admin-guide/cgroup-v2.rst, "IO"). */
export function ioSettings(io: IoResources, has: HasControlFile): ControlSetting[] {
  return [
    ...weightSettings(io, has),
    ...rateSettings("rbps", io.readBytes),
    ...rateSettings("wbps", io.writeBytes),
    ...rateSettings("riops", io.readOperations),
    ...rateSettings("wiops", io.writeOperations),
  ];
}
