import type { FSGroup } from "#proto/agent.ts";
import { FSGroupChangePolicy } from "#proto/types.ts";

/** How the agent protocol says whose a volume's files are. */
export function toFsGroup(groupId: number, always: boolean): Omit<FSGroup, "_unknownFields"> {
  const groupChangePolicy = always ? FSGroupChangePolicy.Always : FSGroupChangePolicy.OnRootMismatch;
  return { groupId, groupChangePolicy };
}
