// SPDX-License-Identifier: Apache-2.0
/* What is looked up in the container's own files: the user's home and the program. All of it is distrusted. */
#define _GNU_SOURCE

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "../kernel.h"
#include "launch.h"
#include "wire.h"

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define PASSWD_MAX 1048576

static const char *environment_find(char *const *env, const char *name)
{
	size_t length = strlen(name);

	for (; *env; env++) {
		if (!strncmp(*env, name, length) && (*env)[length] == '=')
			return *env + length + 1;
	}
	return NULL;
}

/* Field n (from 0) of a passwd(5) line, or NULL; the line's colons become NULs. */
static char *passwd_field(char *line, int n)
{
	char *field = strsep(&line, ":");

	while (field && n--)
		field = strsep(&line, ":");
	return field;
}

/* The home directory that /etc/passwd gives the user, in buffer; the file is the container's, so distrusted. */
static const char *passwd_home(uint32_t uid, char *buffer, size_t size)
{
	hako_auto_close int fd = open("/etc/passwd", O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	struct stat st;
	ssize_t length;
	char *line;

	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return NULL;
	length = read(fd, buffer, size - 1);
	if (length <= 0)
		return NULL;
	buffer[length] = 0;
	while ((line = strsep(&buffer, "\n"))) {
		char *home = NULL, *id;
		size_t id_at;

		id = strchr(line, ':');
		id = id ? strchr(id + 1, ':') : NULL;
		if (!id)
			continue;
		id_at = (size_t)(id + 1 - line);
		if (strtoul(line + id_at, &home, 10) != uid || home == line + id_at || *home != ':')
			continue;
		home = passwd_field(line, 5);
		return home && home[0] == '/' ? home : NULL;
	}
	return NULL;
}

/* HOME is part of every process's environment; who gives none gets that of its user, or "/". */
void hako_home_set(struct hako_request *q)
{
	static char assignment[HAKO_PATH_MAX + 1];
	const char *home = NULL;
	char *buffer;

	if (environment_find(q->env, "HOME"))
		return;
	buffer = malloc(PASSWD_MAX);
	if (buffer)
		home = passwd_home(q->user.uid, buffer, PASSWD_MAX);
	snprintf(assignment, sizeof(assignment), "HOME=%s", home && strlen(home) < HAKO_PATH_MAX - 8 ? home : "/");
	q->env[q->env_count++] = assignment;
	q->env[q->env_count] = NULL;
	free(buffer);
}

static int executable_check(const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EACCES;
	return faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) < 0 ? -errno : 0;
}

/* Looks argv[0] up as execvp(3) does, with the container's PATH. -EACCES wins over -ENOENT. */
static int program_find(struct hako_request *q, const char **program)
{
	static char candidate[HAKO_PATH_MAX + 1];
	const char *name = q->args[0];
	const char *path = environment_find(q->env, "PATH");
	int ret = -ENOENT;

	*program = name;
	if (strchr(name, '/'))
		return executable_check(name);
	for (path = path ? path : DEFAULT_PATH;; path++) {
		int length = (int)strcspn(path, ":");
		int one;

		if ((size_t)length + strlen(name) + 2 <= sizeof(candidate)) {
			snprintf(candidate, sizeof(candidate), "%.*s%s%s", length, path, length ? "/" : "", name);
			one = executable_check(candidate);
			*program = candidate;
			if (!one)
				return 0;
			if (one == -EACCES)
				ret = one;
		}
		path += length;
		if (!*path)
			return ret;
	}
}

int hako_program_find(struct hako_launch *l)
{
	int ret = program_find(l->request, &l->program);

	return ret ? hako_fail(l, HAKO_STEP_EXECVE, ret, "%s", l->request->args[0]) : 0;
}
