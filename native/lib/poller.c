/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "../hako.h"

struct hako_poller {
	int epoll_fd;
	int notify_fd;
	int ack_fd;
};

/* Waits for readiness, tells the event loop, and waits until the loop has collected. */
static void *hako_poller_run(void *arg)
{
	struct hako_poller *poller = arg;

	for (;;) {
		struct pollfd ready = { .fd = poller->epoll_fd, .events = POLLIN };
		uint64_t one = 1, acknowledged;

		if (poll(&ready, 1, -1) < 0) {
			if (errno == EINTR)
				continue;
			break;
		}
		if (write(poller->notify_fd, &one, sizeof(one)) != sizeof(one))
			break;
		while (read(poller->ack_fd, &acknowledged, sizeof(acknowledged)) < 0 && errno == EINTR)
			;
	}
	return NULL;
}

static int hako_poller_open(struct hako_poller *poller)
{
	poller->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	poller->notify_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	poller->ack_fd = eventfd(0, EFD_CLOEXEC);
	return poller->epoll_fd < 0 || poller->notify_fd < 0 || poller->ack_fd < 0 ? -errno : 0;
}

static void hako_poller_free(struct hako_poller *poller)
{
	if (poller->epoll_fd >= 0)
		close(poller->epoll_fd);
	if (poller->notify_fd >= 0)
		close(poller->notify_fd);
	if (poller->ack_fd >= 0)
		close(poller->ack_fd);
	free(poller);
}

static int hako_poller_spawn(struct hako_poller *poller)
{
	pthread_attr_t attributes;
	sigset_t all, before;
	pthread_t thread;
	int error;

	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attributes, 64 * 1024);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	error = pthread_create(&thread, &attributes, hako_poller_run, poller);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attributes);
	return -error;
}

int32_t hako_poller_start(int32_t *epoll_fd, int32_t *notify_fd, int32_t *ack_fd)
{
	struct hako_poller *poller = malloc(sizeof(*poller));
	int error;

	if (!poller)
		return -ENOMEM;
	error = hako_poller_open(poller);
	if (!error)
		error = hako_poller_spawn(poller);
	if (error) {
		hako_poller_free(poller);
		return error;
	}
	*epoll_fd = poller->epoll_fd;
	*notify_fd = poller->notify_fd;
	*ack_fd = poller->ack_fd;
	return 0;
}
