/** 2^28 ids that systemd and distributions leave unused (UIDS-GIDS.md of systemd: 1879048192 to 2147483647). */
const FIRST = 0x7000_0000;
/** PID_MAX_LIMIT is 2^22, so 64 machines of each process have ids of their own. */
const PER_PROCESS = 64;

let made = 0;

/** User and group of the next hako-vmm: two that run at the same time do not share one. */
export function nextUserId(): number {
  return FIRST + process.pid * PER_PROCESS + (made++ % PER_PROCESS);
}
