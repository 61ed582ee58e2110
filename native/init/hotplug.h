/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the built-in VMM asks of its guest: to take a device that was put into an empty virtio-mmio window, to let go
 * of one, and to bring vCPUs online or offline. Linux has no event for the first two (virtio-mmio has no hotplug, and
 * ACPI's removes no platform device), and the last one is user space's duty everywhere.
 *
 * The host connects to this vsock port. One request a line, one answer a line:
 *
 *   bind ADDRESS      the driver takes the window at this address (hexadecimal) -> ok
 *   unbind ADDRESS    the driver lets go of it                                  -> ok
 *   online COUNT      vCPUs 0 to COUNT - 1 are online, no others                -> ok REACHED
 *
 * or "error ERRNO". What is done already is ok. src/vmm/guest-hotplug.ts is the other side.
 */
#ifndef HAKO_INIT_HOTPLUG_H
#define HAKO_INIT_HOTPLUG_H

#define HAKO_HOTPLUG_PORT 1030
#define HAKO_HOTPLUG_LINE_MAX 64

/* Serves hosts, one after the other, for ever. Returns a negative errno when it cannot listen. Needs /proc and /sys. */
int hako_hotplug_serve(void);

#endif
