// SPDX-License-Identifier: Apache-2.0
/* The persistent memory device (VIRTIO 1.2, 5.19): a file that is guest memory, and flushes of it. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/virtio_pmem.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "device.h"
#include "io.h"

#define PAGE		4096ull
#define ALIGNMENT	(2ull << 20)
#define QUEUE_SIZE	64
#define ANSWER		sizeof(struct virtio_pmem_resp)

struct flush {
	struct hako_io io;
	struct pmem *pmem;
	struct hako_buffers answer;
	struct iovec iov[ANSWER];
	uint16_t head;
	bool busy;
};

struct pmem {
	struct hako_virtio virtio;
	struct hako_io_user user;
	uint64_t gpa, size;
	uint32_t memory_slot;
	bool read_only;
	struct flush flushes[QUEUE_SIZE];	/* by the head of the chain */
	uint64_t operations, errors;
};

static struct pmem *pmem_of(struct hako_virtio *v)
{
	return hako_container_of(v, struct pmem, virtio);
}

static void flush_done(struct hako_io *io, int result)
{
	struct flush *flush = hako_container_of(io, struct flush, io);
	struct pmem *p = flush->pmem;
	/* The driver knows 0 and "not 0" (5.19.7). */
	struct virtio_pmem_resp answer = { .ret = result < 0 };

	p->operations++;
	p->errors += result < 0;
	flush->busy = false;
	hako_buffers_put(&flush->answer, &answer, ANSWER);
	hako_queue_push(&p->virtio.queues[0], flush->head, ANSWER);
}

static int flush_start(struct pmem *p, struct hako_chain *chain)
{
	struct flush *flush = &p->flushes[chain->head];
	struct virtio_pmem_req request;

	if (flush->busy || chain->write.bytes < ANSWER || !hako_buffers_get(&chain->read, &request, sizeof(request)))
		return -EPROTO;
	hako_buffers_trim(&chain->write, ANSWER);
	*flush = (struct flush){
		.io = { .operation = HAKO_IO_SYNC, .slot = p->virtio.slot, .done = flush_done },
		.pmem = p,
		.answer = { .count = chain->write.count, .bytes = ANSWER },
		.head = chain->head,
		.busy = true,
	};
	memcpy(flush->iov, chain->write.iov, chain->write.count * sizeof(flush->iov[0]));
	flush->answer.iov = flush->iov;
	p->user.unsettled = true;
	if (request.type != VIRTIO_PMEM_REQ_TYPE_FLUSH) {
		flush_done(&flush->io, -EINVAL);
	} else if (p->read_only) {
		flush_done(&flush->io, 0);
	} else {
		hako_io_submit(&flush->io);
	}
	return 0;
}

static int pmem_notify(struct hako_virtio *v, uint32_t queue)
{
	struct pmem *p = pmem_of(v);
	struct hako_chain chain;
	int ret = 1;

	for (uint32_t n = 0; n < QUEUE_SIZE && ret > 0; n++) {
		ret = hako_queue_pop(&v->queues[queue], v->memory, &chain);
		if (ret > 0) {
			ret = flush_start(p, &chain);
			ret = ret < 0 ? ret : 1;
		}
	}
	hako_io_flush();
	if (ret > 0)
		hako_virtio_kick(v, queue);
	return ret < 0 ? ret : 0;
}

static void pmem_settled(struct hako_io_user *user)
{
	hako_virtio_signal_queue(&hako_container_of(user, struct pmem, user)->virtio, 0);
}

static void pmem_drain(struct hako_virtio *v)
{
	hako_io_drain(&pmem_of(v)->user);
}

/* ---- life */

/*
 * Puts anonymous memory in the place of what lies wholly behind the end of the file: there a file mapping raises
 * SIGBUS. The rest of the file's last page reads as zeros by itself. The guest could not tell that its writes there go
 * nowhere, so a writable device must have a file of the full size.
 */
static int tail_map(const struct pmem *p, const struct hako_region *region, uint64_t file_bytes)
{
	uint64_t whole = (file_bytes + PAGE - 1) & ~(PAGE - 1);
	int protection = p->read_only ? PROT_READ : PROT_READ | PROT_WRITE;

	if (whole >= p->size)
		return 0;
	if (!p->read_only)
		return -EINVAL;
	if (mmap(region->host + whole, p->size - whole, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		 0) == MAP_FAILED)
		return -errno;
	return 0;
}

static int memory_map(struct pmem *p, int fd, uint64_t offset)
{
	struct hako_memory *memory = hako_machine_memory(p->virtio.machine);
	struct hako_region wanted = {
		.gpa = p->gpa,
		.size = p->size,
		.slot = p->memory_slot,
		.flags = HAKO_MEMORY_SHARED | HAKO_MEMORY_VOLATILE | (p->read_only ? HAKO_MEMORY_READ_ONLY : 0),
	};
	off_t end = lseek(fd, 0, SEEK_END);
	const struct hako_region *region;
	int ret;

	if (end < 0)
		return -errno;
	if ((uint64_t)end <= offset)
		return -EINVAL;
	region = hako_memory_add(memory, &wanted, fd, offset, &ret);
	if (!region)
		return ret;
	ret = tail_map(p, region, (uint64_t)end - offset);
	if (ret < 0)
		hako_memory_remove(memory, p->memory_slot);
	return ret;
}

static int pmem_open(struct hako_virtio *v, const struct hako_device_request *request)
{
	struct pmem *p = pmem_of(v);
	const struct hako_pmem *config = request->config;
	int ret;

	if (request->fd_count != 1 || v->queues[0].max_size > QUEUE_SIZE || config->gpa % ALIGNMENT || config->size % ALIGNMENT || config->reserved)
		return -EINVAL;
	p->gpa = config->gpa;
	p->size = config->size;
	p->memory_slot = config->memory_slot;
	p->read_only = request->add->flags & HAKO_DEVICE_READ_ONLY;
	ret = memory_map(p, request->fds[0], config->offset);
	if (ret < 0)
		return ret;
	p->user = (struct hako_io_user){ .slot = v->slot, .fd = request->fds[0], .settled = pmem_settled };
	ret = hako_io_attach(&p->user);
	if (ret < 0) {
		hako_memory_remove(hako_machine_memory(v->machine), p->memory_slot);
		return ret;
	}
	request->fds[0] = -1;
	v->queue_count = 1;
	v->config_size = sizeof(struct virtio_pmem_config);
	return 0;
}

static void pmem_close(struct hako_virtio *v)
{
	struct pmem *p = pmem_of(v);

	hako_io_detach(&p->user);
	close(p->user.fd);
	hako_memory_remove(hako_machine_memory(v->machine), p->memory_slot);
}

static void pmem_config_read(struct hako_virtio *v, uint32_t offset, void *data, uint32_t length)
{
	const struct pmem *p = pmem_of(v);
	struct virtio_pmem_config config = { .start = p->gpa, .size = p->size };

	memcpy(data, (const uint8_t *)&config + offset, length);
}

static void pmem_metrics(struct hako_virtio *v)
{
	hako_metric_add(v->machine, v->slot, "flush_operations", pmem_of(v)->operations);
	hako_metric_add(v->machine, v->slot, "flush_errors", pmem_of(v)->errors);
}

const struct hako_virtio_ops hako_virtio_pmem = {
	.kind = HAKO_KIND_PMEM,
	.name = "pmem",
	.instance_size = sizeof(struct pmem),
	.config_size = sizeof(struct hako_pmem),
	.queue_size = QUEUE_SIZE,
	.open = pmem_open,
	.close = pmem_close,
	.reset = pmem_drain,
	.notify = pmem_notify,
	.config_read = pmem_config_read,
	.quiesce = pmem_drain,
	.metrics = pmem_metrics,
};
