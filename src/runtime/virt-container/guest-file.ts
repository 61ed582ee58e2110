import { type FileHandle, open } from "node:fs/promises";
import type { AgentClient } from "#agent-client/client.ts";
import { HakoError } from "#base/error.ts";
import type { GuestAttributes, GuestWriter } from "#resource/volume/guest-copy.ts";

type Agent = AgentClient["agent"];

/** Bytes of one message. */
const COPY_BYTES = 256 * 1024;
/** Permissions of directories that the agent makes on the way to a file. */
const DIRECTORY_MODE = 0o755;
/** Kinds of files (linux/stat.h). */
const S_IFREG = 0o100000;
const S_IFDIR = 0o040000;
const S_IFLNK = 0o120000;

/** What a file in the guest is to look like. */
interface Attributes {
  readonly path: string;
  readonly size: number;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
}

/** Writes to the guest through its agent. */
export class AgentWriter implements GuestWriter {
  readonly #agent: Agent;

  constructor(agent: Agent) {
    this.#agent = agent;
  }

  async writeFile(hostPath: string, path: string, signal?: AbortSignal): Promise<void> {
    await using file = await openFile(hostPath);
    const { size, mode, uid, gid } = await file.stat();
    const attributes = { path, size, mode, uid, gid };
    // An empty file takes one message, too.
    for (let offset = 0; offset === 0 || offset < size; offset += COPY_BYTES) {
      const data = await readPiece(file, offset, Math.min(COPY_BYTES, size - offset));
      if (!data)
        throw new HakoError("ABORTED", `Cannot copy "${hostPath}" into the guest: it became shorter`);
      await send(this.#agent, attributes, offset, data, signal);
    }
  }

  async writeText(text: string, path: string, signal?: AbortSignal): Promise<void> {
    const data = Buffer.from(text);
    const attributes = { path, size: data.length, mode: S_IFREG | 0o644, uid: 0, gid: 0 };
    await send(this.#agent, attributes, 0, data, signal);
  }

  async writeDirectory(
    path: string,
    { mode, uid, gid }: GuestAttributes,
    signal?: AbortSignal,
  ): Promise<void> {
    const attributes = { path, size: 0, mode: S_IFDIR | mode, uid, gid };
    await send(this.#agent, attributes, 0, new Uint8Array(), signal);
  }

  async writeLink(
    target: string,
    path: string,
    { uid, gid }: GuestAttributes,
    signal?: AbortSignal,
  ): Promise<void> {
    const data = Buffer.from(target);
    await send(this.#agent, { path, size: data.length, mode: S_IFLNK | 0o777, uid, gid }, 0, data, signal);
  }
}

async function openFile(path: string): Promise<FileHandle> {
  try {
    return await open(path, "r");
  } catch (cause) {
    const missing = cause instanceof Error && "code" in cause && cause.code === "ENOENT";
    throw new HakoError(
      missing ? "NOT_FOUND" : "PERMISSION_DENIED",
      `Cannot copy "${path}" into the guest: it cannot be opened`,
      { cause },
    );
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
