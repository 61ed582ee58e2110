// SPDX-License-Identifier: Apache-2.0
/* The guest's file systems: from the initramfs to the EROFS image and what is mounted in it. */
#define _GNU_SOURCE

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "../kernel.h"
#include "pid1.h"

#define IMAGE_SERIAL "hako-guest"
#define PROGRAM_SERIAL "hako-exe"
#define DEVICE_WAIT_MS 10000
#define NEW_ROOT "/sysroot"

/* On-disk EROFS superblock (linux/fs/erofs/erofs_fs.h): where it is, its magic, its count of other devices. */
#define EROFS_OFFSET 1024
#define EROFS_MAGIC 0xe0f5e1e2
#define EROFS_EXTRA_DEVICES 86
#define EROFS_SIZE 128

struct filesystem {
	const char *type, *target;
	unsigned long flags;
	const char *options;
};

#define NO_PRIVILEGE (MS_NOSUID | MS_NODEV)
#define INERT (MS_NOSUID | MS_NODEV | MS_NOEXEC)

static const struct filesystem early[] = {
	{ "devtmpfs", "/dev", MS_NOSUID, "mode=0755" },
	{ "proc", "/proc", INERT, NULL },
	{ "sysfs", "/sys", INERT, NULL },
};

static const struct filesystem late[] = {
	{ "cgroup2", "/sys/fs/cgroup", INERT, "nsdelegate" },
	{ "tmpfs", "/run", NO_PRIVILEGE, "mode=0755" },
	{ "tmpfs", "/tmp", NO_PRIVILEGE, "mode=1777" },
	{ "devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "gid=5,mode=0620,ptmxmode=0666" },
	{ "tmpfs", "/dev/shm", NO_PRIVILEGE, "mode=1777" },
	{ "mqueue", "/dev/mqueue", INERT, NULL },
};

static int filesystems_mount(const struct filesystem *list, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		const struct filesystem *f = &list[i];

		mkdir(f->target, 0755);
		if (hako_mount(f->type, f->target, f->type, f->flags, f->options) < 0)
			return hako_say(errno, "cannot mount %s on %s", f->type, f->target);
	}
	return 0;
}

int hako_early_mounts(void)
{
	return filesystems_mount(early, HAKO_ARRAY_LENGTH(early));
}

int hako_late_mounts(void)
{
	return filesystems_mount(late, HAKO_ARRAY_LENGTH(late));
}

/* Whether /sys/block/<name>/serial holds the serial; it has no line end, and at most 20 bytes (virtio-blk). */
static bool serial_is(const char *name, const char *serial)
{
	char path[300], text[64];
	hako_auto_close int fd = -1;
	ssize_t length;

	snprintf(path, sizeof(path), "/sys/block/%s/serial", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	length = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (length <= 0)
		return false;
	text[length] = 0;
	text[strcspn(text, "\n")] = 0;
	return !strcmp(text, serial);
}

static bool device_find(const char *serial, char *path, size_t size)
{
	DIR *block = opendir("/sys/block");
	struct dirent *entry;
	bool found = false;

	while (block && !found && (entry = readdir(block))) {
		found = entry->d_name[0] != '.' && serial_is(entry->d_name, serial);
		if (found)
			snprintf(path, size, "/dev/%s", entry->d_name);
	}
	if (block)
		closedir(block);
	return found;
}

/*
 * Where a disk lies that has no serial, as the host says on the command line: "hako.disk.<serial>=<path>". Memory that
 * is a disk (virtio-pmem) is used in place, so that nothing of it is copied into the page cache.
 */
static bool device_given(const char *serial, char *path, size_t size)
{
	char word[64], line[4096];
	hako_auto_close int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
	ssize_t length = fd < 0 ? -1 : read(fd, line, sizeof(line) - 1);
	char *save = NULL;
	int start;

	if (length <= 0)
		return false;
	line[length] = 0;
	start = snprintf(word, sizeof(word), "hako.disk.%s=", serial);
	for (char *at = strtok_r(line, " \n", &save); at; at = strtok_r(NULL, " \n", &save)) {
		if (strncmp(at, word, (size_t)start))
			continue;
		snprintf(path, size, "%s", at + start);
		return true;
	}
	return false;
}

/* Drivers may still be probing when PID 1 starts. */
static int device_wait(const char *serial, char *path, size_t size)
{
	uint64_t end = hako_monotonic_ns() + DEVICE_WAIT_MS * 1000000ull;
	struct timespec pause = { .tv_nsec = 2000000 };
	bool given = device_given(serial, path, size);

	do {
		if (given ? access(path, F_OK) == 0 : device_find(serial, path, size))
			return 0;
		nanosleep(&pause, NULL);
	} while (hako_monotonic_ns() < end);
	return hako_say(ENODEV, given ? "no block device for \"%s\" after %d ms" :
			"no block device with serial \"%s\" after %d ms", serial, DEVICE_WAIT_MS);
}

/* How many other devices the image on a device needs, or a negative errno. */
static int image_extra_devices(const char *path)
{
	unsigned char super[EROFS_SIZE];
	hako_auto_close int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint32_t magic;

	if (fd < 0)
		return -errno;
	if (pread(fd, super, sizeof(super), EROFS_OFFSET) != (ssize_t)sizeof(super))
		return -EIO;
	memcpy(&magic, super, sizeof(magic));
	if (magic != EROFS_MAGIC)
		return -EINVAL;
	return super[EROFS_EXTRA_DEVICES] | super[EROFS_EXTRA_DEVICES + 1] << 8;
}

static int image_mount(void)
{
	char image[280], program[280], options[320];
	const char *in_place;
	int extra;
	int ret = device_wait(IMAGE_SERIAL, image, sizeof(image));

	if (ret)
		return ret;
	extra = image_extra_devices(image);
	if (extra < 0 || extra > 1)
		return hako_say(extra < 0 ? -extra : EINVAL, "%s holds no guest image", image);
	in_place = strncmp(image, "/dev/pmem", 9) ? "" : "dax=always";
	snprintf(options, sizeof(options), "%s", in_place);
	if (extra) {
		ret = device_wait(PROGRAM_SERIAL, program, sizeof(program));
		if (ret)
			return ret;
		snprintf(options, sizeof(options), "%s%sdevice=%s", in_place, *in_place ? "," : "", program);
	}
	mkdir(NEW_ROOT, 0755);
	if (hako_mount(image, NEW_ROOT, "erofs", MS_RDONLY | MS_NODEV, options) < 0)
		return hako_say(errno, "cannot mount %s (%s)", image, options);
	return 0;
}

int hako_root_switch(void)
{
	int ret = image_mount();

	if (ret)
		return ret;
	for (size_t i = 0; i < HAKO_ARRAY_LENGTH(early); i++) {
		char target[64];

		snprintf(target, sizeof(target), NEW_ROOT "%s", early[i].target);
		if (hako_mount(early[i].target, target, NULL, MS_MOVE, NULL) < 0)
			return hako_say(errno, "cannot move %s to %s", early[i].target, target);
	}
	if (chdir(NEW_ROOT) < 0 || hako_mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 || chdir("/") < 0)
		return hako_say(errno, "cannot make the guest image the root");
	return 0;
}

void hako_unmount_all(void)
{
	enum { MOUNTS_MAX = 1024 };
	static char *targets[MOUNTS_MAX];
	FILE *mounts = fopen("/proc/self/mounts", "re");
	char *line = NULL;
	size_t size = 0;
	int count = 0;

	while (mounts && count < MOUNTS_MAX && getline(&line, &size, mounts) > 0) {
		char *target = strchr(line, ' ');

		if (!target)
			continue;
		target++;
		target[strcspn(target, " ")] = 0;
		targets[count] = strdup(target);
		count += targets[count] != NULL;
	}
	while (count--) {
		/* Only below /run are file systems with data of their own. */
		if (!strncmp(targets[count], "/run/", 5))
			hako_umount(targets[count], UMOUNT_NOFOLLOW);
	}
}
