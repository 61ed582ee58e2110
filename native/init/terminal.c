// SPDX-License-Identifier: Apache-2.0
/*
 * The pseudo terminal comes from the container's own devpts, so that its name means something inside. The
 * container may have put anything at that path: it is taken only if it is the multiplexer of a devpts, and
 * the slave side is had from the master by ioctl, never by name.
 */
#define _GNU_SOURCE

#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <termios.h>

#include <linux/magic.h>

#include "../kernel.h"
#include "launch.h"
#include "wire.h"

/* Only looks first: opening an unknown device or pipe may already do something. */
static int master_open(struct hako_launch *l)
{
	hako_auto_close int found = hako_root_open(l->root, "/dev/pts/ptmx", O_PATH, RESOLVE_NO_SYMLINKS);
	struct statfs fs;
	struct stat st;
	char self[32];

	if (found < 0)
		return found;
	if (fstatfs(found, &fs) < 0 || fstat(found, &st) < 0)
		return -errno;
	if (fs.f_type != DEVPTS_SUPER_MAGIC || !S_ISCHR(st.st_mode) || st.st_rdev != makedev(5, 2))
		return -ENODEV;
	snprintf(self, sizeof(self), "self/fd/%d", found);
	return hako_result(openat(l->proc, self, O_RDWR | O_NOCTTY | O_CLOEXEC));
}

int hako_terminal_open(struct hako_launch *l)
{
	const struct hako_request *q = l->request;
	struct winsize size = { .ws_row = (uint16_t)q->rows, .ws_col = (uint16_t)q->columns };
	hako_auto_close int master = -1;
	uint32_t op = HAKO_OP_TERMINAL;
	int unlock = 0;
	int ret;

	if (!(q->flags & HAKO_FLAG_TERMINAL))
		return 0;
	master = master_open(l);
	if (master < 0)
		return hako_fail(l, HAKO_STEP_TERMINAL, master, "/dev/pts/ptmx");
	if (ioctl(master, TIOCSPTLCK, &unlock) < 0 || ioctl(master, TIOCSWINSZ, &size) < 0)
		return hako_fail(l, HAKO_STEP_TERMINAL, -errno, "settings");
	l->terminal = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (l->terminal < 0)
		return hako_fail(l, HAKO_STEP_TERMINAL, -errno, "slave side");
	ret = hako_report(l->report, &op, sizeof(op), master);
	return ret ? hako_fail(l, HAKO_STEP_TERMINAL, ret, "hand-over") : 0;
}

int hako_terminal_attach_console(struct hako_launch *l)
{
	hako_auto_close int tree = -1;
	int ret;

	if (l->terminal < 0)
		return 0;
	tree = hako_tree_clone(l->terminal, "", AT_EMPTY_PATH);
	ret = tree < 0 ? tree : hako_tree_attach_at(l, tree, "/dev/console", 0);
	return ret < 0 ? hako_fail(l, HAKO_STEP_TERMINAL, ret, "/dev/console") : 0;
}

/* Makes the terminal, which is descriptor 0 by now, the controlling one of the new session. */
int hako_terminal_control(struct hako_launch *l)
{
	if (!(l->request->flags & HAKO_FLAG_TERMINAL))
		return 0;
	if (ioctl(0, TIOCSCTTY, 0) < 0)
		return hako_fail(l, HAKO_STEP_TERMINAL, -errno, "controlling terminal");
	return 0;
}
