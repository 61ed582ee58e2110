/* SPDX-License-Identifier: Apache-2.0 */
/* The guest's first process: from the kernel's hand-over to power-off. */
#ifndef HAKO_INIT_PID1_H
#define HAKO_INIT_PID1_H

#include <stdint.h>

/* pid1.c: the whole life of PID 1. */
_Noreturn void hako_pid1_run(void);

/* mount_root.c. Each prints what failed and returns 0 or a negative errno. */
/* Mounts /dev, /proc and /sys in the initramfs. */
int hako_early_mounts(void);
/* Finds the guest image, mounts it and makes it the root. */
int hako_root_switch(void);
/* Mounts what a running guest needs besides. */
int hako_late_mounts(void);
/* Unmounts everything that can be, newest first. */
void hako_unmount_all(void);

/* Nanoseconds of CLOCK_MONOTONIC, which in a guest begin at its boot. */
uint64_t hako_monotonic_ns(void);

/* Prints a line on the console, with strerror(error) after it unless that is 0. Returns -error. */
int hako_say(int error, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
