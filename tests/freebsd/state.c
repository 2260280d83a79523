/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Copyright (c) 2026, The toehold authors
 */

/*
 * What a test case changes in the machine, and how it is undone.  The cleanup
 * part runs in a process of its own, which may find anything half done, so
 * every change is noted in a file of the working directory before it is made.
 */

#include <sys/param.h>
#include <sys/linker.h>
#include <sys/sysctl.h>
#include <sys/wait.h>

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "toetest.h"

#define	STATE_FILE	"state"

/* More than any test case makes. */
#define	MAXNOTES	64

bool
knob_present(const char *name)
{
	size_t len = 0;

	return (sysctlbyname(name, NULL, &len, NULL, 0) == 0);
}

/* Reads an integer of either size; -1 with errno set if that fails. */
static int
read_knob(const char *name, int64_t *v, size_t *len)
{
	union {
		int32_t	i;
		int64_t	q;
	} u;

	*len = sizeof(u);
	if (sysctlbyname(name, &u, len, NULL, 0) != 0)
		return (-1);
	if (*len != sizeof(u.i) && *len != sizeof(u.q)) {
		errno = EINVAL;
		return (-1);
	}
	*v = *len == sizeof(u.i) ? u.i : u.q;
	return (0);
}

int64_t
knob_get(const char *name)
{
	size_t len;
	int64_t v;

	if (read_knob(name, &v, &len) != 0)
		atf_tc_fail("sysctl %s: %s", name, strerror(errno));
	return (v);
}

/* Returns 0 or an errno. */
int
knob_try(const char *name, int64_t v)
{
	int64_t old;
	int32_t v32;
	size_t len;

	if (read_knob(name, &old, &len) != 0)
		return (errno);
	v32 = (int32_t)v;
	if (sysctlbyname(name, NULL, NULL, len == sizeof(v32) ?
	    (const void *)&v32 : (const void *)&v, len) != 0)
		return (errno);
	return (0);
}

void
knob_set(const char *name, int64_t v)
{
	int error;

	error = knob_try(name, v);
	if (error != 0)
		atf_tc_fail("sysctl %s=%jd: %s", name, (intmax_t)v,
		    strerror(error));
}

/* Set it for this test case. */
void
knob_change(const char *name, int64_t v)
{
	char line[256];

	snprintf(line, sizeof(line), "%s=%jd", name, (intmax_t)knob_get(name));
	state_note("sysctl", line);
	knob_set(name, v);
}

/* A counter of toehold. */
int64_t
stat_get(const char *name)
{
	char full[128];

	snprintf(full, sizeof(full), STATS_NODE "%s", name);
	return (knob_get(full));
}

bool
module_loaded(const char *name)
{

	return (kldfind(name) != -1);
}

/* Returns 0 or an errno. */
int
module_unload(const char *name)
{
	int id;

	id = kldfind(name);
	if (id == -1 || kldunload(id) != 0)
		return (errno);
	return (0);
}

void
module_load(const char *path)
{

	if (kldload(path) == -1)
		atf_tc_fail("kldload %s: %s", path, strerror(errno));
}

/*
 * Have a module loaded again afterwards, from where it came, which is also
 * returned.
 */
void
module_note(const char *name, char *path, size_t size)
{
	struct kld_file_stat st;

	memset(&st, 0, sizeof(st));
	st.version = sizeof(st);
	if (kldstat(kldfind(name), &st) != 0)
		atf_tc_fail("kldstat %s: %s", name, strerror(errno));
	strlcpy(path, st.pathname, size);
	state_note("module", path);
}

void
state_note(const char *what, const char *value)
{
	FILE *f;

	f = fopen(STATE_FILE, "a");
	if (f == NULL || fprintf(f, "%s %s\n", what, value) < 0 ||
	    fclose(f) != 0)
		atf_tc_fail(STATE_FILE ": %s", strerror(errno));
}

static void
undo(const char *what, char *value)
{
	char *eq;

	if (strcmp(what, "sysctl") == 0) {
		eq = strchr(value, '=');
		if (eq == NULL)
			return;
		*eq++ = '\0';
		(void)knob_try(value, strtoll(eq, NULL, 10));
	} else if (strcmp(what, "module") == 0) {
		/* EEXIST: it never went. */
		(void)kldload(value);
	} else if (strcmp(what, "command") == 0)
		(void)command_try("%s", value);
}

/* Undo what is noted, the latest first. */
void
state_undo(void)
{
	char lines[MAXNOTES][256], *value;
	FILE *f;
	int n;

	f = fopen(STATE_FILE, "r");
	if (f == NULL)
		return;
	for (n = 0; n < MAXNOTES &&
	    fgets(lines[n], sizeof(lines[n]), f) != NULL; n++)
		lines[n][strcspn(lines[n], "\n")] = '\0';
	(void)fclose(f);
	while (n-- > 0) {
		value = strchr(lines[n], ' ');
		if (value == NULL)
			continue;
		*value++ = '\0';
		undo(lines[n], value);
	}
}

static int __printflike(3, 0)
vcommand(char *line, size_t size, const char *fmt, va_list ap)
{
	int status;

	vsnprintf(line, size, fmt, ap);
	status = system(line);
	return (WIFEXITED(status) ? WEXITSTATUS(status) : -1);
}

/* Run a command; returns its exit status. */
int
command_try(const char *fmt, ...)
{
	char line[1024];
	va_list ap;
	int status;

	va_start(ap, fmt);
	status = vcommand(line, sizeof(line), fmt, ap);
	va_end(ap);
	return (status);
}

/* Run one that has to succeed. */
void
command(const char *fmt, ...)
{
	char line[1024];
	va_list ap;
	int status;

	va_start(ap, fmt);
	status = vcommand(line, sizeof(line), fmt, ap);
	va_end(ap);
	if (status != 0)
		atf_tc_fail("%s: exit status %d", line, status);
}
