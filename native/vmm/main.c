// SPDX-License-Identifier: Apache-2.0
/*
 * hako-vmm: carries out what the manager of one virtual machine decides.
 *
 *   hako-vmm UID GID
 *
 * Started by hako_spawn (native/hako.h) in namespaces of its own, with /dev/null or a log on descriptors 0 to 2 and
 * a listening SOCK_SEQPACKET socket on 3. It confines itself to UID and GID, and then serves the socket (wire.h).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "jail.h"
#include "machine.h"
#include "virtio/io.h"

static int say(int error, const char *what)
{
	dprintf(2, "hako-vmm: %s: %s\n", what, strerror(-error));
	return 1;
}

/* A number from 1 to 2^32 - 2, or 0 for anything else. */
static uint32_t id_parse(const char *text)
{
	char *end;
	unsigned long long value;

	errno = 0;
	value = strtoull(text, &end, 10);
	return errno || *end || !*text || *text == '-' || value >= UINT32_MAX ? 0 : (uint32_t)value;
}

int main(int argc, char **argv)
{
	struct hako_machine *machine = &hako_the_machine;
	int ret;

	machine->process_ns = hako_now_ns();
	machine->pid = (uint32_t)getpid();
	if (argc != 3)
		return say(-EINVAL, "usage: hako-vmm UID GID");
	prctl(PR_SET_NAME, "hako-vmm", 0, 0, 0);
	ret = hako_jail_enter(id_parse(argv[1]), id_parse(argv[2]));
	if (ret)
		return say(ret, "cannot confine itself");
	ret = hako_signals_init();
	if (!ret)
		ret = hako_machine_init(machine);
	if (!ret)
		ret = hako_io_open(&machine->loop, HAKO_IO_ENTRIES);
	if (!ret)
		ret = hako_control_open(machine, HAKO_CONTROL_FD);
	if (ret)
		return say(ret, "cannot serve its control socket");
	ret = hako_seccomp_load(HAKO_FILTER_EVENT);
	if (ret)
		return say(ret, "cannot load its seccomp filter");
	machine->served_ns = hako_now_ns();
	ret = hako_loop_run(&machine->loop, &machine->lock);
	return say(ret, "cannot wait for events");
}
