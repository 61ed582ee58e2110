/** `user[:group]` as the agent protocol's StringUser has it: empty members are for the agent to choose. */
export function splitUser(text: string): { uid: string; gid: string } {
  const colon = text.indexOf(":");
  return colon < 0 ? { uid: text, gid: "" } : { uid: text.slice(0, colon), gid: text.slice(colon + 1) };
}
