import { readFileSync } from "node:fs";
import { join } from "node:path";
import { HakoError } from "#base/error.ts";
import type { Mount } from "#oci/runtime-spec.ts";
import { containerDir } from "#resource/storage.ts";
import { diskVolume, openBlockFile, volumeSerial } from "./block.ts";
import { findHostFile } from "./host-file.ts";
import { bindFrom, isBind, isReadOnly } from "./mount-option.ts";
import type { VolumeHandler } from "./volume.ts";

/** Where a CSI driver leaves word of a volume that the machine is to mount itself (Kata's place and form). */
const DIRECTORY = "/run/kata-containers/shared/direct-volumes";
const MAX_BYTES = 64 * 1024;

/** mountInfo.json */
interface MountInfo {
  readonly volumeType: string;
  readonly device: string;
  readonly fstype: string;
  readonly options: readonly string[];
  readonly groupId: number | undefined;
  readonly changeGroupAlways: boolean;
}

/** A disk or disk image that the host does not mount: the guest does. */
export function directVolume(directory = DIRECTORY): VolumeHandler {
  const file = ({ source = "" }: Mount) => join(directory, base64Url(source), "mountInfo.json");
  return {
    name: "direct",
    matches: (mount) => isBind(mount) && findHostFile(file(mount))?.isFile() === true,
    async prepare(mount, place) {
      const path = file(mount);
      const info = readMountInfo(path);
      if (info.volumeType !== "directvol" && info.volumeType !== "block") {
        throw new HakoError(
          "UNIMPLEMENTED",
          `Cannot attach the volume of "${path}": its type is "${info.volumeType}", only "directvol" is supported`,
        );
      }
      const readOnly = isReadOnly(mount) || info.options.includes("ro");
      const serial = volumeSerial(place);
      const mountPoint = `${containerDir(place.containerId)}/volume-${place.index}`;
      const options = [...info.options.filter((option) => option !== "rw"), ...(readOnly ? ["ro"] : [])];
      return diskVolume(
        openBlockFile(info.device, readOnly),
        { serial, readOnly },
        {
          fstype: info.fstype,
          options: [...new Set(options)],
          mountPoint,
          mount: bindFrom(mountPoint, mount, readOnly),
          ...(info.groupId !== undefined && {
            fsGroup: { groupId: info.groupId, always: info.changeGroupAlways },
          }),
        },
      );
    },
  };
}

/** As Go's base64.URLEncoding writes it. */
function base64Url(text: string): string {
  return Buffer.from(text).toString("base64").replaceAll("+", "-").replaceAll("/", "_");
}

function readMountInfo(path: string): MountInfo {
  const fail = (problem: string) => new HakoError("INVALID_ARGUMENT", `Cannot use "${path}": ${problem}`);
  const text = readFileSync(path, "utf8");
  if (text.length > MAX_BYTES) throw fail("it is too large");
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw fail("it is not JSON");
  }
  const table = asTable(value);
  if (!table) throw fail("it is no object");
  const string = (name: string) => {
    const member = table[name];
    if (typeof member === "string" && member !== "") return member;
    throw fail(`"${name}" must be a string`);
  };
  const metadata = asTable(table.metadata) ?? {};
  const group = metadata.fsGroup ?? metadata.fs_group;
  const groupId = group === undefined || group === "" ? undefined : Number(group);
  if (groupId !== undefined && !(Number.isInteger(groupId) && groupId >= 0 && groupId < 2 ** 32))
    throw fail('"metadata.fsGroup" must be a group id');
  const policy = metadata.fsGroupChangePolicy ?? "";
  const options = table.options ?? [];
  if (!Array.isArray(options) || !options.every((option) => typeof option === "string"))
    throw fail('"options" must be a list of strings');
  return {
    volumeType: string(table["volume-type"] === undefined ? "volume_type" : "volume-type"),
    device: string("device"),
    fstype: string(table.fstype === undefined ? "fs_type" : "fstype"),
    options,
    groupId,
    changeGroupAlways: policy !== "OnRootMismatch",
  };
}

function asTable(value: unknown): Record<string, unknown> | undefined {
  return typeof value === "object" && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : undefined;
}
