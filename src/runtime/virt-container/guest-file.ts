import { type FileHandle, open } from "node:fs/promises";
import type { AgentClient } from "#agent-client/client.ts";
import { HakoError } from "#base/error.ts";
import type { GuestFileCopy } from "#resource/volume/volume.ts";

type Agent = AgentClient["agent"];

/** Bytes of one message. */
const COPY_BYTES = 256 * 1024;
/** Permissions of directories that the agent makes on the way to a file. */
const DIRECTORY_MODE = 0o755;
/** A regular file that everybody may read (linux/stat.h). */
const TEXT_MODE = 0o100644;

/** What a file in the guest is to look like. */
interface Attributes {
  readonly path: string;
  readonly size: number;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
}

/** Writes a file in the guest. ABORTED when the host's file became shorter meanwhile. */
export async function copyToGuest(agent: Agent, copy: GuestFileCopy, signal?: AbortSignal): Promise<void> {
  const { source, guestPath: path } = copy;
  if ("text" in source) {
    const data = Buffer.from(source.text);
    await send(agent, { path, size: data.length, mode: TEXT_MODE, uid: 0, gid: 0 }, 0, data, signal);
    return;
  }
  await using file = await open(source.hostPath, "r");
  const { size, mode, uid, gid } = await file.stat();
  const attributes = { path, size, mode, uid, gid };
  // An empty file takes one message, too.
  for (let offset = 0; offset === 0 || offset < size; offset += COPY_BYTES) {
    const data = await readPiece(file, offset, Math.min(COPY_BYTES, size - offset));
    if (!data)
      throw new HakoError("ABORTED", `Cannot copy "${source.hostPath}" into the guest: it became shorter`);
    await send(agent, attributes, offset, data, signal);
  }
}

async function send(
  agent: Agent,
  { path, size, mode, uid, gid }: Attributes,
  offset: number,
  data: Uint8Array,
  signal?: AbortSignal,
): Promise<void> {
  await agent.copyFile(
    {
      path,
      fileSize: BigInt(size),
      fileMode: mode,
      dirMode: DIRECTORY_MODE,
      uid,
      gid,
      offset: BigInt(offset),
      data,
    },
    signal ? { signal } : {},
  );
}

/** Undefined when the file ends before. */
async function readPiece(file: FileHandle, offset: number, length: number): Promise<Uint8Array | undefined> {
  const bytes = new Uint8Array(length);
  for (let filled = 0; filled < length; ) {
    const { bytesRead } = await file.read(bytes, filled, length - filled, offset + filled);
    if (bytesRead === 0) return undefined;
    filled += bytesRead;
  }
  return bytes;
}
