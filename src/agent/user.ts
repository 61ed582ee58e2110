import { HakoError } from "#base/error.ts";
import { statusOf } from "#linux/file.ts";
import type { StringUser } from "#proto/agent.ts";
import type { Process, User } from "#proto/oci.ts";
import { E, isErrno } from "#sys/errno.ts";
import { type Fd, O, openat2, openFd, RESOLVE, readAll } from "#sys/fd.ts";
import { descriptorPath } from "./safe-directory.ts";

/** Larger files are refused: the container may have written them. */
const FILE_LIMIT = 1024 * 1024;
/** NGROUPS_MAX (linux/limits.h). */
const GROUPS_MAX = 65536;
/** (uid_t)-1 means "leave as it is" to the kernel. */
const ID_MAX = 0xffff_fffe;
const ROOT = "0";

interface PasswdEntry {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
  readonly home: string;
}

interface GroupEntry {
  readonly name: string;
  readonly gid: number;
  readonly members: readonly string[];
}

/** Who to run as, by names or decimal numbers as images and users write them; "" where nothing was said. */
interface NamedUser {
  readonly user: string;
  readonly group: string;
  readonly additionalGroups: readonly string[];
}

function parseId(text: string): number | undefined {
  const id = /^\d{1,10}$/.test(text) ? Number(text) : Number.NaN;
  return id <= ID_MAX ? id : undefined;
}

/** passwd(5); lines that are none are passed over. */
export function parsePasswd(text: string): PasswdEntry[] {
  return text.split("\n").flatMap((line) => {
    const [name, , uidText, gidText, , home] = line.split(":");
    const uid = parseId(uidText ?? "");
    const gid = parseId(gidText ?? "");
    return name && uid !== undefined && gid !== undefined ? { name, uid, gid, home: home ?? "" } : [];
  });
}

/** group(5). */
export function parseGroup(text: string): GroupEntry[] {
  return text.split("\n").flatMap((line) => {
    const [name, , gidText, members] = line.split(":");
    const gid = parseId(gidText ?? "");
    return name && gid !== undefined ? { name, gid, members: members?.split(",").filter(Boolean) ?? [] } : [];
  });
}

/**
 * A text file of a container's root file system; "" when there is none. Symbolic links stay inside the root; a
 * mount that the container made, a device, a pipe or a huge file is refused instead of read.
 */
function readContainerFile(root: Fd, path: string): string {
  const resolve = RESOLVE.IN_ROOT | RESOLVE.NO_MAGICLINKS | RESOLVE.NO_XDEV;
  let found: Fd;
  try {
    found = openat2(root.number, path, { flags: O.PATH, resolve });
  } catch (error) {
    if (isErrno(error, E.ENOENT) || isErrno(error, E.ENOTDIR)) return "";
    throw error;
  }
  using place = found;
  if (statusOf(place).kind !== "file") {
    throw new HakoError(
      "FAILED_PRECONDITION",
      `Cannot read "/${path}" of the container: it is no regular file`,
    );
  }
  using file = openFd(descriptorPath(place), O.RDONLY);
  return readAll(file.number, `"/${path}" of the container`, FILE_LIMIT).toString("utf8");
}

function noEntry(kind: "user" | "group", name: string): never {
  throw new HakoError(
    "FAILED_PRECONDITION",
    `Cannot find ${kind} ${JSON.stringify(name.slice(0, 200))} in the image`,
  );
}

function resolveGroup(name: string, groups: readonly GroupEntry[]): number {
  return groups.find((entry) => entry.name === name)?.gid ?? parseId(name) ?? noEntry("group", name);
}

/**
 * Names to numbers as docker does it: a name wins over a number of the same digits; a number without an entry is
 * taken as it is, with group 0; a stated group replaces the user's own groups.
 */
function resolveNames(
  named: NamedUser,
  passwd: readonly PasswdEntry[],
  groups: () => readonly GroupEntry[],
): User {
  const number = parseId(named.user);
  const entry =
    passwd.find(({ name }) => name === named.user) ??
    (number === undefined ? undefined : passwd.find(({ uid }) => uid === number));
  const uid = entry?.uid ?? number ?? noEntry("user", named.user);
  const additional = named.additionalGroups.map((name) => resolveGroup(name, groups()));
  if (named.group !== "") {
    return { UID: uid, GID: resolveGroup(named.group, groups()), AdditionalGids: additional, Username: "" };
  }
  const own = entry ? groups().filter(({ members }) => members.includes(entry.name)) : [];
  const gid = entry?.gid ?? 0;
  const all = new Set([...own.map((group) => group.gid).filter((id) => id !== gid), ...additional]);
  return { UID: uid, GID: gid, AdditionalGids: [...all], Username: "" };
}

function namesOf(user: User, stringUser: StringUser | undefined): NamedUser | undefined {
  if (stringUser) {
    const { uid, gid, additionalGids } = stringUser;
    return { user: uid || ROOT, group: gid, additionalGroups: additionalGids };
  }
  if (!user.Username) return undefined;
  const colon = user.Username.indexOf(":");
  const name = colon < 0 ? user.Username : user.Username.slice(0, colon);
  return {
    user: name || ROOT,
    group: colon < 0 ? "" : user.Username.slice(colon + 1),
    additionalGroups: user.AdditionalGids.map(String),
  };
}

/**
 * The process with its user in numbers, and with HOME in its environment when it has none, from the container's own
 * /etc/passwd and /etc/group; `root` is its root directory. `stringUser` goes before `User.Username`, which goes
 * before the numbers. Throws FAILED_PRECONDITION for an unknown name.
 */
export function resolveProcessUser(process: Process, root: Fd, stringUser?: StringUser): Process {
  const given = process.User ?? { UID: 0, GID: 0, AdditionalGids: [], Username: "" };
  const named = namesOf(given, stringUser);
  const wantsHome = !process.Env.some((entry) => entry.startsWith("HOME="));
  if (!named && !wantsHome) return process;
  const passwd = parsePasswd(readContainerFile(root, "etc/passwd"));
  let groups: GroupEntry[] | undefined;
  const readGroups = () => {
    groups ??= parseGroup(readContainerFile(root, "etc/group"));
    return groups;
  };
  const user = named ? { ...given, ...resolveNames(named, passwd, readGroups) } : given;
  if (user.AdditionalGids.length > GROUPS_MAX) {
    throw new HakoError(
      "INVALID_ARGUMENT",
      `Cannot use ${user.AdditionalGids.length} groups: at most ${GROUPS_MAX}`,
    );
  }
  const home = passwd.find(({ uid }) => uid === user.UID)?.home || "/";
  return { ...process, User: user, Env: wantsHome ? [...process.Env, `HOME=${home}`] : process.Env };
}
