/* SPDX-License-Identifier: Apache-2.0 */
/* The loop of PID 1 and of the launcher: requests come in, exits go out. */
#ifndef HAKO_INIT_SERVER_H
#define HAKO_INIT_SERVER_H

#include <stdbool.h>
#include <sys/types.h>

struct hako_server {
	int socket;		/* our end of the launcher socket, non-blocking */
	int signals;		/* signalfd */
	pid_t agent;		/* the agent, when it is our child; else 0 */
	int agent_status;	/* its wait status, once it is gone */
	bool backlog;		/* the agent does not read; exited children wait as zombies */
	bool unreaped;		/* more children may have exited than one round reaps */
};

/* Why hako_serve returned. */
enum hako_end {
	HAKO_END_AGENT_EXITED,	/* agent_status is set */
	HAKO_END_POWER_OFF,	/* asked for by the agent */
	HAKO_END_HANG_UP,	/* the agent closed its socket */
	HAKO_END_SIGNAL,	/* SIGTERM, SIGINT or SIGPWR */
	HAKO_END_ERROR,		/* the kernel refused poll; errno is set */
};

/* Blocks the signals that the loop handles and opens the signalfd. Returns 0 or a negative errno. */
int hako_server_init(struct hako_server *s, int socket);

enum hako_end hako_serve(struct hako_server *s);

/* Kills every child until none is left, for 3 s at most; with everyone, all processes of the pid namespace. */
void hako_children_kill(bool everyone);

/* A dying agent closes its socket before it can be reaped: waits a little for agent_status. False if it lives. */
bool hako_agent_wait(struct hako_server *s);

#endif
