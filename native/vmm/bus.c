// SPDX-License-Identifier: Apache-2.0
/* The devices' slots, and the way from a guest physical address to a device's registers. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>

#include <linux/virtio_mmio.h>

#include "../kernel.h"
#include "machine.h"
#include "virtio/device.h"

#define WINDOW 4096ull
#define GSI_FIRST 5
#define GSI_LAST 23

/* ---- accesses */

static struct hako_virtio *device_at(struct hako_machine *machine, uint64_t gpa, uint32_t length)
{
	uint64_t window = gpa & ~(WINDOW - 1);

	if (gpa - window + length > WINDOW)
		return NULL;
	for (uint32_t i = 0; i < HAKO_DEVICES_MAX; i++) {
		if (machine->device_gpa[i] == window && machine->devices[i])
			return machine->devices[i];
	}
	return NULL;
}

/*
 * Two registers are touched at each interrupt: the driver reads why, and acknowledges. Without the lock, or its
 * handler would wait for whatever the event thread is doing for the device just then. A device goes only while
 * every vCPU stands, so it is there as long as an access lasts.
 */
static bool interrupt_access(struct hako_virtio *device, uint32_t offset, void *data, uint32_t length, bool write)
{
	uint32_t value;

	if (length != sizeof(value) || offset != (write ? VIRTIO_MMIO_INTERRUPT_ACK : VIRTIO_MMIO_INTERRUPT_STATUS))
		return false;
	if (write) {
		memcpy(&value, data, sizeof(value));
		atomic_fetch_and(&device->interrupt_status, ~value);
	} else {
		value = atomic_load(&device->interrupt_status);
		memcpy(data, &value, sizeof(value));
	}
	return true;
}

/* A window without a device is a placeholder, with device id 0: drivers pass it over (VIRTIO 1.2, 4.2.2). */
static void placeholder_read(uint32_t offset, void *data, uint32_t length)
{
	uint32_t value = offset == VIRTIO_MMIO_MAGIC_VALUE ? 'v' | 'i' << 8 | 'r' << 16 | 't' << 24 :
			 offset == VIRTIO_MMIO_VERSION ? 2 : 0;

	memset(data, 0, length);
	memcpy(data, &value, length < sizeof(value) ? length : sizeof(value));
}

/*
 * Nothing is there: reads give ones, writes go nowhere. So do writes to read-only memory; but an access to memory that
 * KVM should have done itself comes here if it could not reach what is behind the memory.
 */
static void unclaimed_access(struct hako_vcpu *vcpu, uint64_t gpa, void *data, uint32_t length, bool write)
{
	struct hako_machine *machine = vcpu->machine;
	const void *host;

	hako_vcpu_count(vcpu, HAKO_COUNT_UNCLAIMED);
	if (!write)
		memset(data, 0xff, length);
	if (gpa - machine->config.mmio_base < machine->config.mmio_size) {
		if (!write)
			placeholder_read((uint32_t)(gpa % WINDOW), data, length);
		return;
	}
	hako_loop_lock(&machine->loop, &machine->lock);
	host = hako_memory_at(&machine->memory, gpa, length, write);
	if (host)
		hako_machine_end_memory(machine, vcpu->index, host);
	hako_loop_unlock(&machine->loop, &machine->lock);
}

void hako_bus_access(struct hako_vcpu *vcpu, uint64_t gpa, void *data, uint32_t length, bool write)
{
	struct hako_machine *machine = vcpu->machine;
	struct hako_virtio *device = device_at(machine, gpa, length);
	uint32_t offset = (uint32_t)(gpa % WINDOW);

	if (!device) {
		unclaimed_access(vcpu, gpa, data, length, write);
		return;
	}
	if (interrupt_access(device, offset, data, length, write))
		return;
	hako_loop_lock(&machine->loop, &machine->lock);
	if (write)
		hako_virtio_write(device, offset, data, length);
	else
		hako_virtio_read(device, offset, data, length);
	hako_loop_unlock(&machine->loop, &machine->lock);
}

/* ---- slots */

static struct hako_virtio *device_find(struct hako_machine *machine, const struct hako_request *request)
{
	const struct hako_device_slot *at = (const void *)request->payload;

	return at->slot < HAKO_DEVICES_MAX && !at->reserved ? machine->devices[at->slot] : NULL;
}

static int no_device(struct hako_reply *reply)
{
	return hako_reply_fail(reply, -ENOENT, "there is no device in this slot");
}

static int add_check(const struct hako_machine *machine, const struct hako_device_add *add, uint32_t config_length,
		     struct hako_reply *reply)
{
	const struct hako_virtio_ops *ops = hako_virtio_find_kind(add->kind);
	uint64_t in_window = add->gpa - machine->config.mmio_base;

	if (!ops)
		return hako_reply_fail(reply, -EOPNOTSUPP, "there are no devices of kind %u", add->kind);
	if (config_length != ops->config_size)
		return hako_reply_fail(reply, -EPROTO, "a %s device takes %zu bytes of settings, not %u", ops->name,
				       ops->config_size, config_length);
	if (add->slot >= HAKO_DEVICES_MAX || add->gpa % WINDOW || in_window >= machine->config.mmio_size ||
	    add->gsi < GSI_FIRST || add->gsi > GSI_LAST || add->reserved)
		return hako_reply_fail(reply, -EINVAL, "slot, address or interrupt is out of range");
	for (uint32_t i = 0; i < HAKO_DEVICES_MAX; i++) {
		if (machine->devices[i] && (i == add->slot || machine->device_gpa[i] == add->gpa))
			return hako_reply_fail(reply, -EEXIST, "slot or address belong to \"%s\"", machine->devices[i]->id);
	}
	return 0;
}

int hako_device_add(struct hako_machine *machine, struct hako_request *request, struct hako_reply *reply)
{
	const struct hako_device_add *add = (const void *)request->payload;
	struct hako_device_request wanted = {
		.add = add,
		.config = add + 1,
		.fds = request->fds,
		.fd_count = request->fd_count,
	};
	char error[HAKO_ERROR_TEXT_MAX] = "";
	struct hako_virtio *device;
	int ret = add_check(machine, add, request->length - (uint32_t)sizeof(*add), reply);

	if (ret)
		return ret;
	ret = hako_virtio_open(machine, &wanted, &device, error);
	if (ret)
		return hako_reply_fail(reply, ret, "%s", error);
	machine->device_gpa[add->slot] = add->gpa;
	machine->devices[add->slot] = device;
	if (machine->state != HAKO_STATE_RUNNING)
		hako_virtio_quiesce(device);
	return 0;
}

int hako_device_remove(struct hako_machine *machine, struct hako_request *request, struct hako_reply *reply)
{
	struct hako_virtio *device = device_find(machine, request);

	if (!device)
		return no_device(reply);
	/* No vCPU may look at it meanwhile, nor another device at the memory that may go with it. */
	hako_machine_halt(machine);
	if (!device->active) {
		machine->devices[device->slot] = NULL;
		machine->device_gpa[device->slot] = 0;
		hako_devices_quiesce(machine);
		hako_virtio_close(device);
		if (machine->state == HAKO_STATE_RUNNING)
			hako_devices_resume(machine);
		device = NULL;
	}
	hako_machine_go(machine);
	return device ? hako_reply_fail(reply, -EBUSY, "the guest's driver holds it") : 0;
}

int hako_device_update(struct hako_machine *machine, struct hako_request *request, struct hako_reply *reply)
{
	struct hako_virtio *device = device_find(machine, request);
	uint32_t length = request->length - (uint32_t)sizeof(struct hako_device_slot);
	int ret;

	if (!device)
		return no_device(reply);
	if (!device->ops->update)
		return hako_reply_fail(reply, -EOPNOTSUPP, "a %s device has nothing to update", device->ops->name);
	if (length != device->ops->update_size)
		return hako_reply_fail(reply, -EPROTO, "an update of a %s device has %zu bytes, not %u",
				       device->ops->name, device->ops->update_size, length);
	ret = device->ops->update(device, request->payload + sizeof(struct hako_device_slot), request->fds,
				  request->fd_count);
	return ret ? hako_reply_fail(reply, ret, "the %s device refuses it", device->ops->name) : 0;
}

int hako_device_get(struct hako_machine *machine, struct hako_request *request, struct hako_reply *reply)
{
	struct hako_virtio *device = device_find(machine, request);
	struct hako_bytes state = { .data = reply->payload, .capacity = reply->capacity };

	if (!device)
		return no_device(reply);
	hako_virtio_save(device, &state);
	if (state.failed)
		return hako_reply_fail(reply, -EMSGSIZE, "the device's state is larger than a message");
	reply->length = state.length;
	return 0;
}

int hako_device_put(struct hako_machine *machine, struct hako_request *request, struct hako_reply *reply)
{
	struct hako_virtio *device = device_find(machine, request);
	struct hako_bytes state = {
		.data = (uint8_t *)request->payload + sizeof(struct hako_device_slot),
		.length = request->length - (uint32_t)sizeof(struct hako_device_slot),
	};
	int ret;

	if (!device)
		return no_device(reply);
	ret = hako_virtio_restore(device, &state);
	if (!ret && (state.failed || state.capacity != state.length))
		ret = -EINVAL;
	return ret ? hako_reply_fail(reply, ret, "this is no state of a %s device", device->ops->name) : 0;
}

void hako_devices_quiesce(struct hako_machine *machine)
{
	for (uint32_t i = 0; i < HAKO_DEVICES_MAX; i++) {
		if (machine->devices[i])
			hako_virtio_quiesce(machine->devices[i]);
	}
}

void hako_devices_resume(struct hako_machine *machine)
{
	for (uint32_t i = 0; i < HAKO_DEVICES_MAX; i++) {
		if (machine->devices[i])
			hako_virtio_resume(machine->devices[i]);
	}
}

uint32_t hako_devices_count(const struct hako_machine *machine)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < HAKO_DEVICES_MAX; i++)
		count += machine->devices[i] != NULL;
	return count;
}
