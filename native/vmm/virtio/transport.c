// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <string.h>
#include <unistd.h>

#include "transport.h"

#define MAGIC			0x74726976	/* "virt" */
#define VENDOR			0x4f4b4148	/* "HAKO" */
#define VERSION			2
#define SHM_ABSENT		0xffffffff	/* length and base of a region that is not there */

static void eventfd_raise(int fd)
{
	uint64_t one = 1;

	/* Fails only when the counter is full: then it is raised anyway. */
	if (write(fd, &one, sizeof(one)) < 0)
		return;
}

void hako_transport_interrupt(struct hako_virtio *v, uint32_t cause)
{
	atomic_fetch_or(&v->interrupt_status, cause);
	eventfd_raise(v->irqfd);
}

void hako_virtio_signal_queue(struct hako_virtio *v, uint32_t queue)
{
	if (hako_queue_wants_interrupt(&v->queues[queue]))
		hako_transport_interrupt(v, VIRTIO_MMIO_INT_VRING);
}

void hako_virtio_signal_config(struct hako_virtio *v)
{
	v->config_generation++;
	if (v->status & VIRTIO_CONFIG_S_DRIVER_OK)
		hako_transport_interrupt(v, VIRTIO_MMIO_INT_CONFIG);
}

void hako_virtio_kick(struct hako_virtio *v, uint32_t queue)
{
	eventfd_raise(v->notifiers[queue].source.fd);
}

static void event_send(struct hako_virtio *v, uint32_t what, uint64_t value)
{
	struct hako_device_event event = { .slot = v->slot, .what = what, .value = value };

	/* Without a manager there is nobody to tell; its successor asks. */
	hako_machine_event(v->machine, HAKO_EVENT_DEVICE, &event, sizeof(event), NULL, 0);
}

void hako_virtio_break(struct hako_virtio *v, int error)
{
	if (v->broken)
		return;
	v->broken = true;
	v->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
	hako_virtio_signal_config(v);
	event_send(v, HAKO_DEVICE_BROKEN, (uint64_t)-error);
	hako_virtio_kick(v, 0);
}

void hako_transport_stop(struct hako_virtio *v)
{
	if (!v->active)
		return;
	v->active = false;
	if (v->ops->reset)
		v->ops->reset(v);
}

void hako_transport_notify(struct hako_virtio *v, uint32_t queue)
{
	int ret;

	if (!hako_virtio_running(v) || !v->queues[queue].ready)
		return;
	ret = v->ops->notify(v, queue);
	if (ret < 0)
		hako_virtio_break(v, ret);
}

void hako_transport_handle(struct hako_source *source, uint32_t events)
{
	struct hako_notifier *notifier = hako_container_of(source, struct hako_notifier, source);
	struct hako_virtio *v = notifier->virtio;
	uint64_t count;

	(void)events;
	if (read(source->fd, &count, sizeof(count)) < 0)
		return;
	if (v->broken)
		hako_transport_stop(v);
	else
		hako_transport_notify(v, (uint32_t)(notifier - v->notifiers));
}

/* ---- status */

static void virtio_reset(struct hako_virtio *v)
{
	bool held = v->status & VIRTIO_CONFIG_S_DRIVER_OK;

	hako_transport_stop(v);
	for (uint32_t i = 0; i < v->queue_count; i++)
		hako_queue_reset(&v->queues[i]);
	v->status = 0;
	v->driver_features = 0;
	v->features_select = v->driver_features_select = v->queue_select = 0;
	v->broken = false;
	atomic_store(&v->interrupt_status, 0);
	if (held)
		event_send(v, HAKO_DEVICE_RELEASED, 0);
}

bool hako_transport_features(const struct hako_virtio *v, uint64_t features)
{
	uint64_t required = v->required | 1ull << VIRTIO_F_VERSION_1;

	return !(features & ~v->features) && (features & required) == required;
}

int hako_transport_rings(struct hako_virtio *v)
{
	bool event_idx = hako_virtio_accepted(v, VIRTIO_RING_F_EVENT_IDX);

	for (uint32_t i = 0; i < v->queue_count; i++) {
		int ret = v->queues[i].ready ? hako_queue_activate(&v->queues[i], v->memory, event_idx) : 0;

		if (ret < 0)
			return ret;
	}
	return 0;
}

int hako_transport_activate(struct hako_virtio *v)
{
	int ret = hako_transport_rings(v);

	if (ret == 0 && v->ops->activate)
		ret = v->ops->activate(v);
	v->active = ret == 0;
	return ret;
}

/* One new bit of the status; the order of 3.1.1 is kept to. */
static void status_add(struct hako_virtio *v, uint32_t bit)
{
	int ret;

	switch (bit) {
	case VIRTIO_CONFIG_S_DRIVER:
		if (!(v->status & VIRTIO_CONFIG_S_ACKNOWLEDGE))
			return;
		break;
	case VIRTIO_CONFIG_S_FEATURES_OK:
		if (!(v->status & VIRTIO_CONFIG_S_DRIVER) || !hako_transport_features(v, v->driver_features))
			return;
		break;
	case VIRTIO_CONFIG_S_DRIVER_OK:
		if (!(v->status & VIRTIO_CONFIG_S_FEATURES_OK) || (v->status & VIRTIO_CONFIG_S_FAILED))
			return;
		v->status |= bit;
		ret = hako_transport_activate(v);
		if (ret < 0)
			hako_virtio_break(v, ret);
		else
			event_send(v, HAKO_DEVICE_ACTIVATED, 0);
		return;
	}
	v->status |= bit;
}

static void status_write(struct hako_virtio *v, uint32_t value)
{
	static const uint32_t order[] = {
		VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_FEATURES_OK,
		VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FAILED,
	};

	if (value == 0) {
		virtio_reset(v);
		return;
	}
	/* A driver only ever adds to the status. */
	if (v->status & ~value & ~(uint32_t)VIRTIO_CONFIG_S_NEEDS_RESET)
		return;
	for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++) {
		if (value & ~v->status & order[i])
			status_add(v, order[i]);
	}
}

/* ---- registers (4.2.2) */

static uint32_t register_read(struct hako_virtio *v, uint32_t offset)
{
	struct hako_queue *q = v->queue_select < v->queue_count ? &v->queues[v->queue_select] : NULL;

	switch (offset) {
	case VIRTIO_MMIO_MAGIC_VALUE:
		return MAGIC;
	case VIRTIO_MMIO_VERSION:
		return VERSION;
	case VIRTIO_MMIO_DEVICE_ID:
		return v->ops->kind;
	case VIRTIO_MMIO_VENDOR_ID:
		return VENDOR;
	case VIRTIO_MMIO_DEVICE_FEATURES:
		return v->features_select < 2 ? (uint32_t)(v->features >> (32 * v->features_select)) : 0;
	case VIRTIO_MMIO_QUEUE_NUM_MAX:
		return q ? q->max_size : 0;
	case VIRTIO_MMIO_QUEUE_READY:
		return q ? q->ready : 0;
	case VIRTIO_MMIO_INTERRUPT_STATUS:
		return atomic_load(&v->interrupt_status);
	case VIRTIO_MMIO_STATUS:
		return v->status;
	case VIRTIO_MMIO_SHM_LEN_LOW:
	case VIRTIO_MMIO_SHM_LEN_HIGH:
	case VIRTIO_MMIO_SHM_BASE_LOW:
	case VIRTIO_MMIO_SHM_BASE_HIGH:
		return SHM_ABSENT;
	case VIRTIO_MMIO_CONFIG_GENERATION:
		return v->config_generation;
	default:
		return 0;
	}
}

static void low_set(uint64_t *address, uint32_t value)
{
	*address = (*address & ~0xffffffffull) | value;
}

static void high_set(uint64_t *address, uint32_t value)
{
	*address = (*address & 0xffffffffull) | (uint64_t)value << 32;
}

/* A queue is set up between FEATURES_OK and DRIVER_OK, and given back by a reset of the device only. */
static void queue_write(struct hako_virtio *v, uint32_t offset, uint32_t value)
{
	struct hako_queue *q = v->queue_select < v->queue_count ? &v->queues[v->queue_select] : NULL;

	if (!q || !(v->status & VIRTIO_CONFIG_S_FEATURES_OK) ||
	    (v->status & VIRTIO_CONFIG_S_DRIVER_OK))
		return;
	if (offset == VIRTIO_MMIO_QUEUE_READY) {
		q->ready = value & 1;
		return;
	}
	if (q->ready)
		return;
	switch (offset) {
	case VIRTIO_MMIO_QUEUE_NUM:
		/* 0 is no size: activation will fail. */
		q->size = value <= q->max_size ? (uint16_t)value : 0;
		break;
	case VIRTIO_MMIO_QUEUE_DESC_LOW:
		low_set(&q->desc, value);
		break;
	case VIRTIO_MMIO_QUEUE_DESC_HIGH:
		high_set(&q->desc, value);
		break;
	case VIRTIO_MMIO_QUEUE_AVAIL_LOW:
		low_set(&q->avail, value);
		break;
	case VIRTIO_MMIO_QUEUE_AVAIL_HIGH:
		high_set(&q->avail, value);
		break;
	case VIRTIO_MMIO_QUEUE_USED_LOW:
		low_set(&q->used, value);
		break;
	case VIRTIO_MMIO_QUEUE_USED_HIGH:
		high_set(&q->used, value);
		break;
	}
}

static void driver_features_write(struct hako_virtio *v, uint32_t value)
{
	if ((v->status & VIRTIO_CONFIG_S_FEATURES_OK) || !(v->status & VIRTIO_CONFIG_S_DRIVER))
		return;
	if (v->driver_features_select == 0)
		low_set(&v->driver_features, value);
	else if (v->driver_features_select == 1)
		high_set(&v->driver_features, value);
}

static void register_write(struct hako_virtio *v, uint32_t offset, uint32_t value)
{
	switch (offset) {
	case VIRTIO_MMIO_DEVICE_FEATURES_SEL:
		v->features_select = value;
		break;
	case VIRTIO_MMIO_DRIVER_FEATURES_SEL:
		v->driver_features_select = value;
		break;
	case VIRTIO_MMIO_DRIVER_FEATURES:
		driver_features_write(v, value);
		break;
	case VIRTIO_MMIO_QUEUE_SEL:
		v->queue_select = value;
		break;
	case VIRTIO_MMIO_QUEUE_NOTIFY:
		/* Comes here only where there is no ioeventfd. */
		if (value < v->queue_count)
			hako_virtio_kick(v, value);
		break;
	case VIRTIO_MMIO_INTERRUPT_ACK:
		atomic_fetch_and(&v->interrupt_status, ~value);
		break;
	case VIRTIO_MMIO_STATUS:
		status_write(v, value);
		break;
	default:
		queue_write(v, offset, value);
	}
}

static bool config_inside(const struct hako_virtio *v, uint32_t offset, uint32_t length)
{
	return offset >= VIRTIO_MMIO_CONFIG && offset - VIRTIO_MMIO_CONFIG + length <= v->config_size;
}

void hako_virtio_read(struct hako_virtio *v, uint32_t offset, void *data, uint32_t length)
{
	uint32_t value;

	memset(data, 0, length);
	if (config_inside(v, offset, length)) {
		v->ops->config_read(v, offset - VIRTIO_MMIO_CONFIG, data, length);
	} else if (offset < VIRTIO_MMIO_CONFIG && length == sizeof(value)) {
		value = register_read(v, offset);
		memcpy(data, &value, sizeof(value));
	}
}

void hako_virtio_write(struct hako_virtio *v, uint32_t offset, const void *data, uint32_t length)
{
	uint32_t value;

	if (config_inside(v, offset, length)) {
		if (v->ops->config_write)
			v->ops->config_write(v, offset - VIRTIO_MMIO_CONFIG, data, length);
	} else if (offset < VIRTIO_MMIO_CONFIG && length == sizeof(value)) {
		memcpy(&value, data, sizeof(value));
		register_write(v, offset, value);
	}
}
