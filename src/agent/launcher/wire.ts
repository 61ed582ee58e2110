/**
 * The numbers of native/init/wire.h, which describes both sockets and the launch request. A unit test compares
 * the two files.
 */
export const OP = {
  LAUNCH: 1,
  POWER_OFF: 2,
  EXIT: 3,
  PID: 16,
  TERMINAL: 17,
  READY: 18,
  FAILED: 19,
  START: 20,
  HELPER: 21,
  HOLD: 22,
  CONTINUE: 23,
} as const;

export const NO_FD = 0xffff_ffff;
export const LAUNCH_FDS_MAX = 32;
export const DETAIL_MAX = 512;

export const REQUEST_MAGIC = 0x6f6b_6148;
export const REQUEST_VERSION = 1;
export const REQUEST_MAX = 16_777_216;

export const FIELD = {
  FLAGS: 1,
  ARGS: 2,
  ENV: 3,
  CWD: 4,
  USER: 5,
  CAPABILITIES: 6,
  RLIMIT: 7,
  OOM_SCORE: 8,
  CONSOLE: 9,
  STDIO: 10,
  NEW: 11,
  JOIN: 12,
  TARGET: 13,
  UID_MAP: 14,
  GID_MAP: 15,
  CGROUP: 16,
  ROOT: 17,
  MOUNT: 18,
  DEVICE: 19,
  MASKED: 20,
  READONLY: 21,
  SYSCTL: 22,
  HOSTNAME: 23,
  DOMAINNAME: 24,
  SECCOMP: 25,
  TIME_OFFSET: 26,
  PERSONALITY: 27,
  IO_PRIORITY: 28,
  SCHEDULER: 29,
  LABEL: 30,
  HOOK: 31,
  MOUNT_MAP: 32,
  SHARED: 33,
  COUNT: 34,
} as const;

export const FLAG = {
  TERMINAL: 1,
  NO_NEW_PRIVS: 2,
  READONLY_ROOT: 4,
  HOLD: 8,
} as const;

export const MOUNT = {
  FILESYSTEM: 0,
  BIND: 1,
  BIND_TREE: 2,
  CGROUP: 3,
  SHARED: 4,
} as const;

export const HOOK = {
  CREATE: 1,
  START: 2,
} as const;

export const LABEL = {
  APPARMOR: 1,
  SELINUX: 2,
} as const;

export const STEP = {
  REQUEST: 1,
  OOM_SCORE: 2,
  RLIMIT: 3,
  CGROUP: 4,
  JOIN: 5,
  CLONE: 6,
  ID_MAP: 7,
  USER: 8,
  ROOT: 9,
  MOUNT: 10,
  DEVICE: 11,
  TERMINAL: 12,
  SYSCTL: 13,
  HOSTNAME: 14,
  LOOPBACK: 15,
  MASKED: 16,
  READONLY: 17,
  CWD: 18,
  STDIO: 19,
  CAPABILITIES: 20,
  NO_NEW_PRIVS: 21,
  SECCOMP: 22,
  EXECVE: 23,
  HOOK: 24,
  TIME: 25,
  SCHEDULER: 26,
  PERSONALITY: 27,
  LABEL: 28,
} as const;
