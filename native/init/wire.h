/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the agent and hako-init say to each other. src/agent/launcher/wire.ts holds the same numbers; a unit
 * test compares the two files.
 *
 * All integers are little endian. Both sockets are SOCK_SEQPACKET, one message a packet.
 *
 * Launcher socket (file descriptor 3 of the agent):
 *   agent -> init  LAUNCH    {u32 op, u32 tag, u32 cgroup}  + descriptors: request memfd, report socket, then
 *                            what the request refers to by index. `cgroup` is the index of a cgroup v2
 *                            directory in which the launching helper itself shall run, or HAKO_NO_FD.
 *                  POWER_OFF {u32 op, u32 tag}
 *   init -> agent  EXIT      {u32 op, u32 tag = 0, i32 pid, i32 wait status as of wait4(2)}, for every child
 *
 * Report socket (one a launch):
 *   init -> agent  HELPER    {u32 op, i32 pid}                 + pidfd of the process that does the work
 *   init -> agent  PID       {u32 op, i32 pid}                 + pidfd
 *                  TERMINAL  {u32 op}                          + master side of the pseudo terminal
 *                  HOLD      {u32 op}: with HAKO_FLAG_HOLD, when the container's file system is built and the
 *                            process still has the outer root: it waits for CONTINUE
 *                  READY     {u32 op}: everything is set up, the process waits
 *                  FAILED    {u32 op, u32 step, i32 errno, detail: the rest, not terminated}
 *   agent -> init  CONTINUE  {u32 op}: the answer to HOLD
 *                  START     {u32 op}: execute the program
 * End of file after START says that execve succeeded. If the agent closes its end before, the process exits.
 */
#ifndef HAKO_INIT_WIRE_H
#define HAKO_INIT_WIRE_H

#define HAKO_OP_LAUNCH		1
#define HAKO_OP_POWER_OFF	2
#define HAKO_OP_EXIT		3
#define HAKO_OP_PID		16
#define HAKO_OP_TERMINAL	17
#define HAKO_OP_READY		18
#define HAKO_OP_FAILED		19
#define HAKO_OP_START		20
#define HAKO_OP_HELPER		21
#define HAKO_OP_HOLD		22
#define HAKO_OP_CONTINUE	23

#define HAKO_NO_FD		0xffffffff
#define HAKO_LAUNCH_FDS_MAX	32
#define HAKO_DETAIL_MAX		512

/*
 * The request: a sealed memfd with {u32 magic, u32 version, u32 size of all, u32 number of fields}, then the
 * fields {u32 type, u32 length, payload}. A string is its bytes and one NUL. "index" is an index into the
 * descriptors of the LAUNCH message.
 */
#define HAKO_REQUEST_MAGIC	0x6f6b6148
#define HAKO_REQUEST_VERSION	1
#define HAKO_REQUEST_MAX	16777216

#define HAKO_FIELD_FLAGS	1	/* u32 HAKO_FLAG_* */
#define HAKO_FIELD_ARGS		2	/* strings */
#define HAKO_FIELD_ENV		3	/* strings */
#define HAKO_FIELD_CWD		4	/* string */
#define HAKO_FIELD_USER		5	/* u32 uid, gid, umask, then the supplementary groups */
#define HAKO_FIELD_CAPABILITIES	6	/* u64 bounding, effective, inheritable, permitted, ambient */
#define HAKO_FIELD_RLIMIT	7	/* u32 resource, u64 soft, u64 hard; repeated */
#define HAKO_FIELD_OOM_SCORE	8	/* i32 */
#define HAKO_FIELD_CONSOLE	9	/* u32 rows, columns */
#define HAKO_FIELD_STDIO	10	/* u32 index of stdin, stdout, stderr */
#define HAKO_FIELD_NEW		11	/* u32 CLONE_NEW*: namespaces to create */
#define HAKO_FIELD_JOIN		12	/* u32 CLONE_NEW*, u32 index of a namespace descriptor; repeated */
#define HAKO_FIELD_TARGET	13	/* u32 index of a pidfd, i32 pid: the process whose namespaces to join */
#define HAKO_FIELD_UID_MAP	14	/* u32 inside, outside, count; repeated */
#define HAKO_FIELD_GID_MAP	15	/* the same */
#define HAKO_FIELD_CGROUP	16	/* u32 index of a cgroup directory */
#define HAKO_FIELD_ROOT		17	/* u32 MS_* propagation or 0, string path */
#define HAKO_FIELD_MOUNT	18	/* u32 kind, attr_set, attr_clear, tree_set, tree_clear, propagation,
					   tree_propagation; strings target, source, type, options…; repeated */
#define HAKO_FIELD_DEVICE	19	/* u32 S_IF* and mode, major, minor, uid, gid; string path; repeated */
#define HAKO_FIELD_MASKED	20	/* string; repeated */
#define HAKO_FIELD_READONLY	21	/* string; repeated */
#define HAKO_FIELD_SYSCTL	22	/* string path below /proc/sys, string value; repeated */
#define HAKO_FIELD_HOSTNAME	23	/* string */
#define HAKO_FIELD_DOMAINNAME	24	/* string */
#define HAKO_FIELD_SECCOMP	25	/* u32 SECCOMP_FILTER_FLAG_*, then struct sock_filter[] */
#define HAKO_FIELD_TIME_OFFSET	26	/* u32 clock id, u64 seconds (signed), u32 nanoseconds; repeated */
#define HAKO_FIELD_PERSONALITY	27	/* u32 as for personality(2) */
#define HAKO_FIELD_IO_PRIORITY	28	/* u32 as for ioprio_set(2) */
#define HAKO_FIELD_SCHEDULER	29	/* u32 policy, i32 nice, u32 priority, u64 flags, runtime, deadline, period */
#define HAKO_FIELD_LABEL	30	/* u32 HAKO_LABEL_*, string */
#define HAKO_FIELD_HOOK		31	/* u32 HAKO_HOOK_*, seconds (0: no limit), number of arguments; strings path,
					   state before and after the pid, arguments, environment; repeated */
#define HAKO_FIELD_MOUNT_MAP	32	/* u32 index of an earlier MOUNT, 1 for all mounts below it too, number of
					   uid maps; u32 inside, outside, count of each uid map, then of gid maps */
#define HAKO_FIELD_SHARED	33	/* u32 index of a pidfd, string source in its mount namespace, string target */
#define HAKO_FIELD_COUNT	34

#define HAKO_FLAG_TERMINAL	1	/* a pseudo terminal instead of the STDIO field */
#define HAKO_FLAG_NO_NEW_PRIVS	2
#define HAKO_FLAG_READONLY_ROOT	4
#define HAKO_FLAG_HOLD		8	/* HOLD is reported and waited on before the root changes */

#define HAKO_MOUNT_FILESYSTEM	0	/* a new instance of file system `type` */
#define HAKO_MOUNT_BIND		1	/* the mount at `source` */
#define HAKO_MOUNT_BIND_TREE	2	/* the same with all mounts below it */
#define HAKO_MOUNT_CGROUP	3	/* the container's own cgroup tree */
#define HAKO_MOUNT_SHARED	4	/* of a SHARED field only: something that another container sees */

#define HAKO_HOOK_CREATE	1	/* in the container's namespaces, with the outer root still in place */
#define HAKO_HOOK_START		2	/* in the container, before its program */

#define HAKO_LABEL_APPARMOR	1	/* a profile's name */
#define HAKO_LABEL_SELINUX	2	/* a security context */

#define HAKO_STEP_REQUEST	1
#define HAKO_STEP_OOM_SCORE	2
#define HAKO_STEP_RLIMIT	3
#define HAKO_STEP_CGROUP	4
#define HAKO_STEP_JOIN		5
#define HAKO_STEP_CLONE		6
#define HAKO_STEP_ID_MAP	7
#define HAKO_STEP_USER		8
#define HAKO_STEP_ROOT		9
#define HAKO_STEP_MOUNT		10
#define HAKO_STEP_DEVICE	11
#define HAKO_STEP_TERMINAL	12
#define HAKO_STEP_SYSCTL	13
#define HAKO_STEP_HOSTNAME	14
#define HAKO_STEP_LOOPBACK	15
#define HAKO_STEP_MASKED	16
#define HAKO_STEP_READONLY	17
#define HAKO_STEP_CWD		18
#define HAKO_STEP_STDIO		19
#define HAKO_STEP_CAPABILITIES	20
#define HAKO_STEP_NO_NEW_PRIVS	21
#define HAKO_STEP_SECCOMP	22
#define HAKO_STEP_EXECVE	23
#define HAKO_STEP_HOOK		24
#define HAKO_STEP_TIME		25
#define HAKO_STEP_SCHEDULER	26
#define HAKO_STEP_PERSONALITY	27
#define HAKO_STEP_LABEL		28

#endif
