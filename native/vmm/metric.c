// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "../kernel.h"
#include "arch.h"
#include "virtio/device.h"

void hako_metric_add(struct hako_machine *machine, uint32_t slot, const char *name, uint64_t value)
{
	struct hako_metric *metric;

	if (!machine->metrics)
		return;
	metric = hako_reply_reserve(machine->metrics, sizeof(*metric));
	if (!metric)
		return;
	snprintf(metric->name, sizeof(metric->name), "%s", name);
	metric->slot = slot;
	metric->value = value;
}

static void machine_metrics(struct hako_machine *machine)
{
	static const char *const names[HAKO_COUNTS] = {
		[HAKO_COUNT_IO] = "exits_io",
		[HAKO_COUNT_MMIO] = "exits_mmio",
		[HAKO_COUNT_UNCLAIMED] = "exits_unclaimed",
		[HAKO_COUNT_SIGNAL] = "exits_signal",
		[HAKO_COUNT_AGAIN] = "exits_again",
		[HAKO_COUNT_OTHER] = "exits_other",
	};

	hako_metric_add(machine, HAKO_NO_DEVICE, "process_ns", machine->process_ns);
	hako_metric_add(machine, HAKO_NO_DEVICE, "served_ns", machine->served_ns);
	hako_metric_add(machine, HAKO_NO_DEVICE, "start_ns", machine->start_ns);
	for (size_t kind = 0; kind < HAKO_COUNTS; kind++) {
		uint64_t sum = 0;

		for (uint32_t i = 0; i < machine->config.vcpus; i++)
			sum += atomic_load_explicit(&machine->vcpus[i].counts[kind], memory_order_relaxed);
		hako_metric_add(machine, HAKO_NO_DEVICE, names[kind], sum);
	}
	for (uint32_t i = 0; i < machine->boot_time_count; i++) {
		char name[32];

		snprintf(name, sizeof(name), "boot_timer_%u", machine->boot_times[i].value);
		hako_metric_add(machine, HAKO_NO_DEVICE, name, machine->boot_times[i].ns);
	}
}

int hako_metrics_get(struct hako_machine *machine, struct hako_reply *reply)
{
	machine->metrics = reply;
	machine_metrics(machine);
	if (machine->arch)
		hako_arch_metrics(machine);
	for (uint32_t i = 0; i < HAKO_DEVICES_MAX; i++) {
		struct hako_virtio *device = machine->devices[i];

		if (device && device->ops->metrics)
			device->ops->metrics(device);
	}
	machine->metrics = NULL;
	return 0;
}
