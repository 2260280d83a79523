/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Copyright (c) 2026, The toehold authors
 */

/*
 * The adapter stops and restarts below its connections.  There is no control:
 * lo0 does not stop.
 */

#include <sys/param.h>
#include <sys/socket.h>

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "toetest.h"

#define	STOPPED	SIM_NODE "stopped"

/* Stops of the adapter under load. */
#define	STOPS	100

#define	READ	65536
#define	WRITE	(4 << 20)

static void
require_stop(void)
{

	if (!knob_present(STOPPED))
		atf_tc_skip("the adapter's driver of this release cannot stop "
		    "and restart");
}

/* Jobs at both ends, whatever they come to. */
struct load {
	struct conn	c;
	struct aiocb	reads[2], write;
};

static void
load_begin(struct load *l, void *in, void *out)
{

	conn_open(TOE, &l->c);
	job_read(&l->reads[0], l->c.self, in, READ);
	job_read(&l->reads[1], l->c.self, (char *)in + READ, READ);
	job_write(&l->write, l->c.peer, out, WRITE);
}

/* A job that the stop ends: with what it had, with nothing, or with an error. */
static void
cut_off(struct aiocb *cb, size_t most)
{
	ssize_t n;

	n = job_end(cb);
	ATF_REQUIRE_MSG((n >= 0 && (size_t)n <= most) ||
	    (n == -1 && (errno == ECONNABORTED || errno == EPIPE ||
	    errno == ECONNRESET)), "%zd (%s)", n,
	    n < 0 ? strerror(errno) : "no error");
}

static void
load_end(struct load *l)
{

	cut_off(&l->reads[0], READ);
	cut_off(&l->reads[1], READ);
	cut_off(&l->write, WRITE);
	conn_close(&l->c);
}

/* What waits for a peer that says nothing hears of the stop. */
static void
idle_jobs(enum path path)
{
	struct aiocb a, b;
	struct conn c;
	char byte;

	require_stop();
	conn_open(path, &c);
	job_read(&a, c.self, memory(READ), READ);
	job_read(&b, c.self, memory(READ), READ);
	pause_ms(100);
	ATF_REQUIRE(job_busy(&a) && job_busy(&b));
	knob_change(STOPPED, 1);
	JOB_FAILS(ECONNABORTED, &a);
	JOB_ENDS(0, &b);
	ATF_REQUIRE(recv(c.peer, &byte, 1, 0) == -1);
	ATF_REQUIRE_EQ_MSG(ECONNABORTED, errno, "recv: %s", strerror(errno));
	conn_close(&c);
	all_quiet(path);
	/* The listener is there again. */
	knob_set(STOPPED, 0);
	conn_open(path, &c);
	send_pattern(c.peer, 95, 0, 50000);
	recv_pattern(c.self, 95, 0, 50000);
	conn_close(&c);
}
SCENARIO(toe_stop_idle, TOE, idle_jobs,
    "requests end when the adapter stops, and listeners outlive that")

/* In the middle of transfers, again and again. */
static void
under_load(enum path path __unused)
{
	struct load l;
	void *in, *out;
	int i;

	require_stop();
	in = memory(2 * READ);
	out = pattern_new(96, 0, WRITE);
	knob_change(STOPPED, 0);
	for (i = 0; i < STOPS; i++) {
		load_begin(&l, in, out);
		pause_ms(i % 7);
		knob_set(STOPPED, 1);
		load_end(&l);
		knob_set(STOPPED, 0);
	}
	conn_open(TOE, &l.c);
	send_pattern(l.c.peer, 97, 0, 50000);
	recv_pattern(l.c.self, 97, 0, 50000);
	conn_close(&l.c);
}
SCENARIO(toe_stop_under_load, TOE, under_load,
    "the adapter stops and restarts in the middle of transfers")

ATF_TP_ADD_TCS(tp)
{

	ATF_TP_ADD_TC(tp, toe_stop_idle);
	ATF_TP_ADD_TC(tp, toe_stop_under_load);
	return (atf_no_error());
}
