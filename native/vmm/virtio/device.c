// SPDX-License-Identifier: Apache-2.0
/* The life of a device beside its registers: made, paused, resumed, saved, restored, removed. */
#include <errno.h>
#include <linux/kvm.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "transport.h"

#define QUEUE_SIZE_DEFAULT	256
#define STATE_VERSION		1

#define TRANSPORT_FEATURES \
	(1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_RING_F_EVENT_IDX | 1ull << VIRTIO_RING_F_INDIRECT_DESC)

static const struct hako_virtio_ops *const kinds[] = {
	&hako_virtio_block, &hako_virtio_net, &hako_virtio_vsock, &hako_virtio_pmem, &hako_virtio_console,
	&hako_virtio_rng, &hako_virtio_balloon, &hako_virtio_mem,
};

const struct hako_virtio_ops *hako_virtio_find_kind(uint32_t kind)
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		if (kinds[i]->kind == kind)
			return kinds[i];
	}
	return NULL;
}

static int irqfd_assign(struct hako_virtio *v, uint32_t flags)
{
	struct kvm_irqfd irqfd = { .fd = (uint32_t)v->irqfd, .gsi = v->gsi, .flags = flags };
	int vm = hako_machine_vm_fd(v->machine);

	return vm >= 0 && ioctl(vm, KVM_IRQFD, &irqfd) < 0 ? -errno : 0;
}

static int ioeventfd_assign(struct hako_virtio *v, uint32_t queue, uint32_t flags)
{
	struct kvm_ioeventfd notify = {
		.datamatch = queue,
		.addr = v->gpa + VIRTIO_MMIO_QUEUE_NOTIFY,
		.len = 4,
		.fd = v->notifiers[queue].source.fd,
		.flags = KVM_IOEVENTFD_FLAG_DATAMATCH | flags,
	};
	int vm = hako_machine_vm_fd(v->machine);

	return vm >= 0 && ioctl(vm, KVM_IOEVENTFD, &notify) < 0 ? -errno : 0;
}

/* Undoes what virtio_wire did, however far that came. */
static void virtio_unwire(struct hako_virtio *v)
{
	for (uint32_t i = 0; i < HAKO_QUEUES_MAX; i++) {
		struct hako_source *source = &v->notifiers[i].source;

		if (source->fd < 0)
			continue;
		ioeventfd_assign(v, i, KVM_IOEVENTFD_FLAG_DEASSIGN);
		hako_source_remove(v->loop, source);
		close(source->fd);
	}
	if (v->irqfd >= 0) {
		irqfd_assign(v, KVM_IRQFD_FLAG_DEASSIGN);
		close(v->irqfd);
	}
}

int hako_virtio_connect(struct hako_virtio *v)
{
	int ret = irqfd_assign(v, 0);

	for (uint32_t i = 0; ret == 0 && i < v->queue_count; i++)
		ret = ioeventfd_assign(v, i, 0);
	return ret;
}

static int virtio_wire(struct hako_virtio *v)
{
	int ret;

	v->irqfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (v->irqfd < 0)
		return -errno;
	for (uint32_t i = 0; i < v->queue_count; i++) {
		struct hako_notifier *notifier = &v->notifiers[i];
		int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

		if (fd < 0)
			return -errno;
		notifier->virtio = v;
		notifier->source = (struct hako_source){ .fd = fd, .handle = hako_transport_handle };
		ret = hako_source_add(v->loop, &notifier->source, EPOLLIN);
		if (ret < 0) {
			close(fd);
			notifier->source.fd = -1;
			return ret;
		}
	}
	return hako_virtio_connect(v);
}

static int error_set(char *error, int code, const char *format, const char *id, const char *why)
{
	snprintf(error, HAKO_ERROR_TEXT_MAX, format, id, why);
	return code;
}

static bool queue_size_valid(uint32_t size)
{
	return size == 0 || (size >= 2 && size <= HAKO_QUEUE_SIZE_MAX && !(size & (size - 1)));
}

int hako_virtio_open(struct hako_machine *machine, const struct hako_device_request *request,
		     struct hako_virtio **virtio, char *error)
{
	const struct hako_device_add *add = request->add;
	const struct hako_virtio_ops *ops = hako_virtio_find_kind(add->kind);
	uint32_t queue_size = add->queue_size;
	struct hako_virtio *v;
	int ret;

	if (!memchr(add->id, 0, sizeof(add->id)))
		return error_set(error, -EINVAL, "Cannot add device%s: %s", "", "its id has no end");
	if (!ops)
		return error_set(error, -ENODEV, "Cannot add device \"%s\": %s", add->id, "unknown kind");
	if (!queue_size_valid(queue_size))
		return error_set(error, -EINVAL, "Cannot add device \"%s\": %s", add->id,
				 "the queue size is no power of 2 from 2 to 1024");
	v = calloc(1, ops->instance_size);
	if (!v)
		return error_set(error, -ENOMEM, "Cannot add device \"%s\": %s", add->id, "no memory");
	v->ops = ops;
	v->machine = machine;
	v->memory = hako_machine_memory(machine);
	v->loop = hako_machine_loop(machine);
	memcpy(v->id, add->id, sizeof(v->id));
	v->slot = add->slot;
	v->gsi = add->gsi;
	v->gpa = add->gpa;
	v->irqfd = -1;
	for (uint32_t i = 0; i < HAKO_QUEUES_MAX; i++)
		v->notifiers[i].source.fd = -1;
	if (queue_size == 0)
		queue_size = ops->queue_size ? ops->queue_size : QUEUE_SIZE_DEFAULT;
	for (uint32_t i = 0; i < HAKO_QUEUES_MAX; i++) {
		v->queues[i].max_size = (uint16_t)queue_size;
		hako_queue_reset(&v->queues[i]);
	}
	ret = ops->open(v, request);
	if (ret == 0) {
		v->features |= TRANSPORT_FEATURES;
		ret = virtio_wire(v);
		if (ret < 0) {
			virtio_unwire(v);
			ops->close(v);
		}
	}
	if (ret < 0) {
		error_set(error, ret, "Cannot add device \"%s\": %s", add->id, strerror(-ret));
		free(v);
		return ret;
	}
	*virtio = v;
	return 0;
}

void hako_virtio_close(struct hako_virtio *v)
{
	hako_transport_stop(v);
	virtio_unwire(v);
	v->ops->close(v);
	free(v);
}

void hako_virtio_quiesce(struct hako_virtio *v)
{
	if (v->quiet)
		return;
	v->quiet = true;
	if (v->active && v->ops->quiesce)
		v->ops->quiesce(v);
}

void hako_virtio_resume(struct hako_virtio *v)
{
	int ret;

	if (!v->quiet)
		return;
	v->quiet = false;
	if (v->broken || !v->active)
		return;
	ret = hako_transport_rings(v);
	if (ret < 0) {
		hako_virtio_break(v, ret);
		return;
	}
	/* A restored driver may wait for an interrupt that was on its way when the machine was saved. */
	if (atomic_load(&v->interrupt_status))
		hako_transport_interrupt(v, 0);
	if (v->ops->resume)
		v->ops->resume(v);
	for (uint32_t i = 0; i < v->queue_count; i++)
		hako_virtio_kick(v, i);
}

/* ---- state */

struct transport_state {
	uint32_t version, kind;
	uint64_t features, driver_features;
	uint32_t status, features_select, driver_features_select, queue_select;
	uint32_t interrupt_status, config_generation, queue_count, reserved;
};

struct queue_state {
	uint64_t desc, avail, used;
	uint16_t size, next_avail, next_used, signalled_used;
	uint8_t ready, signalled_valid, reserved[6];
};

void hako_bytes_put(struct hako_bytes *bytes, const void *data, uint32_t length)
{
	if (bytes->failed || length > bytes->capacity - bytes->length) {
		bytes->failed = true;
		return;
	}
	memcpy(bytes->data + bytes->length, data, length);
	bytes->length += length;
}

void hako_bytes_get(struct hako_bytes *bytes, void *data, uint32_t length)
{
	if (bytes->failed || length > bytes->length - bytes->capacity) {
		bytes->failed = true;
		memset(data, 0, length);
		return;
	}
	memcpy(data, bytes->data + bytes->capacity, length);
	bytes->capacity += length;
}

void hako_virtio_save(struct hako_virtio *v, struct hako_bytes *bytes)
{
	struct transport_state state = {
		.version = STATE_VERSION,
		.kind = v->ops->kind,
		.features = v->features,
		.driver_features = v->driver_features,
		.status = v->status,
		.features_select = v->features_select,
		.driver_features_select = v->driver_features_select,
		.queue_select = v->queue_select,
		.interrupt_status = atomic_load(&v->interrupt_status),
		.config_generation = v->config_generation,
		.queue_count = v->queue_count,
	};

	hako_bytes_put(bytes, &state, sizeof(state));
	for (uint32_t i = 0; i < v->queue_count; i++) {
		const struct hako_queue *q = &v->queues[i];
		struct queue_state queue = {
			.desc = q->desc, .avail = q->avail, .used = q->used,
			.size = q->size, .next_avail = q->next_avail, .next_used = q->next_used,
			.signalled_used = q->signalled_used,
			.ready = q->ready, .signalled_valid = q->signalled_valid,
		};

		hako_bytes_put(bytes, &queue, sizeof(queue));
	}
	if (v->ops->save)
		v->ops->save(v, bytes);
}

static bool state_valid(const struct hako_virtio *v, const struct transport_state *state)
{
	if (state->version != STATE_VERSION || state->kind != v->ops->kind || state->queue_count != v->queue_count ||
	    state->status > 0xff)
		return false;
	/* Features that the guest knows must still be there; before FEATURES_OK nothing has been agreed on. */
	return !(state->status & VIRTIO_CONFIG_S_FEATURES_OK) || hako_transport_features(v, state->driver_features);
}

static void queues_restore(struct hako_virtio *v, struct hako_bytes *bytes)
{
	for (uint32_t i = 0; i < v->queue_count; i++) {
		struct hako_queue *q = &v->queues[i];
		struct queue_state state;

		hako_bytes_get(bytes, &state, sizeof(state));
		q->desc = state.desc;
		q->avail = state.avail;
		q->used = state.used;
		q->size = state.size;
		q->next_avail = state.next_avail;
		q->next_used = state.next_used;
		q->signalled_used = state.signalled_used;
		q->signalled_valid = state.signalled_valid;
		q->ready = state.ready;
		if (q->size > q->max_size)
			bytes->failed = true;
	}
}

int hako_virtio_restore(struct hako_virtio *v, struct hako_bytes *bytes)
{
	struct transport_state state;
	int ret = 0;

	if (v->status)
		return -EBUSY;
	hako_bytes_get(bytes, &state, sizeof(state));
	if (bytes->failed || !state_valid(v, &state))
		return -EINVAL;
	queues_restore(v, bytes);
	v->driver_features = state.driver_features;
	if (!bytes->failed && v->ops->restore)
		ret = v->ops->restore(v, bytes);
	if (ret < 0 || bytes->failed || bytes->capacity != bytes->length)
		return -EINVAL;
	v->features_select = state.features_select;
	v->driver_features_select = state.driver_features_select;
	v->queue_select = state.queue_select;
	v->config_generation = state.config_generation;
	atomic_store(&v->interrupt_status, state.interrupt_status);
	v->status = state.status;
	v->broken = state.status & VIRTIO_CONFIG_S_NEEDS_RESET;
	v->quiet = true;
	if (!(v->status & VIRTIO_CONFIG_S_DRIVER_OK) || v->broken)
		return 0;
	return hako_transport_activate(v);
}
