/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Copyright (c) 2026, The toehold authors
 */

/*
 * aio_cancel(2): what it answers, what becomes of the request, and of the
 * bytes.
 */

#include <sys/param.h>
#include <sys/socket.h>

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "toetest.h"

/* More than the buffers of both ends can grow to. */
#define	PLENTY	(64 << 20)

/*
 * Cancel a request and take its result: a count, or -1 for ECANCELED.
 * What aio_cancel answers and how the request ends go together.
 */
static ssize_t
cancel(int fd, struct aiocb *cb)
{
	ssize_t n;
	int how;

	how = aio_cancel(fd, cb);
	ATF_REQUIRE_MSG(how != -1, "aio_cancel: %s", strerror(errno));
	if (how == AIO_CANCELED)
		ATF_REQUIRE_EQ_MSG(ECANCELED, aio_error(cb),
		    "said to be cancelled, but has %s",
		    strerror(aio_error(cb)));
	n = job_end(cb);
	ATF_REQUIRE_MSG(n >= 0 || errno == ECANCELED, "cancelled: %s",
	    strerror(errno));
	return (n);
}

static void
cancel_done(enum path path)
{
	struct aiocb cb;
	struct conn c;
	void *buf;

	conn_open(path, &c);
	buf = memory(4096);
	job_read(&cb, c.self, buf, 10);
	send_pattern(c.peer, 30, 0, 10);
	while (job_busy(&cb))
		pause_ms(1);
	ATF_REQUIRE_EQ(AIO_ALLDONE, aio_cancel(c.self, &cb));
	JOB_ENDS(10, &cb);
	ATF_REQUIRE_EQ(AIO_ALLDONE, aio_cancel(c.self, NULL));
	pattern_check(buf, 30, 0, 10);
	conn_close(&c);
}
BOTH_WAYS(cancel_done, "a request that has ended cannot be cancelled")

static void
cancel_queued_read(enum path path)
{
	struct aiocb cbs[4];
	struct conn c;
	size_t at;
	ssize_t n;
	void *bufs[4];
	int i;

	conn_open(path, &c);
	for (i = 0; i < 4; i++) {
		bufs[i] = memory(4096);
		job_read(&cbs[i], c.self, bufs[i], 4096);
	}
	pause_ms(50);
	ATF_REQUIRE_EQ(AIO_CANCELED, aio_cancel(c.self, &cbs[3]));
	JOB_FAILS(ECANCELED, &cbs[3]);
	pause_ms(50);
	for (i = 0; i < 3; i++)
		ATF_REQUIRE_MSG(job_busy(&cbs[i]), "another went with it");
	send_pattern(c.peer, 31, 0, 50000);
	ATF_REQUIRE(shutdown(c.peer, SHUT_WR) == 0);
	for (at = 0, i = 0; i < 3; i++, at += n) {
		n = job_end(&cbs[i]);
		ATF_REQUIRE_MSG(n > 0, "read %d: %zd", i, n);
		pattern_check(bufs[i], 31, at, n);
	}
	ATF_REQUIRE_EQ(50000, drain(c.self, 31, at));
	conn_close(&c);
}
BOTH_WAYS(cancel_queued_read, "a read that waits behind others goes at once")

static void
cancel_posted_reads(enum path path)
{
	struct aiocb a, b;
	struct conn c;
	void *ba, *bb;
	int i;

	conn_open(path, &c);
	ba = memory(65536);
	bb = memory(65536);
	/* The second time direct placement is on, and both are posted. */
	for (i = 0; i < 2; i++) {
		job_read(&a, c.self, ba, 65536);
		job_read(&b, c.self, bb, 65536);
		pause_ms(50);
		ATF_REQUIRE_EQ(-1, cancel(c.self, &a));
		ATF_REQUIRE_EQ(-1, cancel(c.self, &b));
	}
	send_pattern(c.peer, 32, 0, 50000);
	ATF_REQUIRE(shutdown(c.peer, SHUT_WR) == 0);
	ATF_REQUIRE_EQ(50000, drain(c.self, 32, 0));
	conn_close(&c);
}
BOTH_WAYS(cancel_posted_reads, "reads of an idle connection are cancelled, "
    "and no byte is lost")

#define	POURED	1000000

/* Each read either ends with its count, or with ECANCELED and none. */
static void
pour(enum path path, u_int seed)
{
	struct aiocb cbs[2];
	struct peer peer;
	struct conn c;
	size_t at;
	ssize_t n[2];
	void *bufs[2];
	bool end;
	int i;

	conn_open(path, &c);
	bufs[0] = memory(65536);
	bufs[1] = memory(65536);
	peer_send(&peer, c.peer, seed, 0, POURED, 0);
	at = 0;
	end = false;
	while (!end) {
		for (i = 0; i < 2; i++)
			job_read(&cbs[i], c.self, bufs[i], 65536);
		(void)usleep(seed * 17 % 130);
		for (i = 0; i < 2; i++)
			n[i] = cancel(c.self, &cbs[i]);
		for (i = 0; i < 2; i++) {
			if (n[i] < 0)
				continue;
			pattern_check(bufs[i], seed, at, n[i]);
			at += n[i];
		}
		end = at >= POURED;
	}
	ATF_REQUIRE_EQ(POURED, at);
	ATF_REQUIRE_EQ(POURED, peer_join(&peer));
	conn_close(&c);
}

static void
cancel_running_reads(enum path path)
{
	u_int seed;

	/* Bytes are still placed while a buffer is taken back. */
	if (path == TOE)
		knob_change(SIM_NODE "invalidate_delay", 200000);
	for (seed = 33; seed < 43; seed++)
		pour(path, seed);
}
BOTH_WAYS(cancel_running_reads, "reads are cancelled while bytes pour in")

static void
cancel_queued_write(enum path path)
{
	struct aiocb a, b;
	struct peer peer;
	struct conn c;
	void *buf;

	conn_open(path, &c);
	buf = pattern_new(50, 0, PLENTY);
	job_write(&a, c.self, buf, PLENTY);
	job_write(&b, c.self, buf, 1000);
	pause_ms(50);
	ATF_REQUIRE_EQ(AIO_CANCELED, aio_cancel(c.self, &b));
	JOB_FAILS(ECANCELED, &b);
	ATF_REQUIRE_MSG(job_busy(&a), "the other one went with it");
	peer_drain(&peer, c.peer, 50, 0, 0);
	JOB_ENDS(PLENTY, &a);
	ATF_REQUIRE(shutdown(c.self, SHUT_WR) == 0);
	ATF_REQUIRE_EQ(PLENTY, peer_join(&peer));
	conn_close(&c);
}
BOTH_WAYS(cancel_queued_write, "a write that waits behind another goes at "
    "once")

static void
cancel_started_write(enum path path)
{
	struct aiocb cb;
	struct peer peer;
	struct conn c;
	ssize_t n;
	void *buf;

	conn_open(path, &c);
	buf = pattern_new(51, 0, PLENTY);
	job_write(&cb, c.self, buf, PLENTY);
	pause_ms(100);
	ATF_REQUIRE_EQ(AIO_NOTCANCELED, aio_cancel(c.self, &cb));
	peer_drain(&peer, c.peer, 51, 0, 100);
	n = job_end(&cb);
	ATF_REQUIRE_MSG(n > 0 && n < PLENTY, "%zd of %d (%s)", n, PLENTY,
	    n < 0 ? strerror(errno) : "no error");
	ATF_REQUIRE(shutdown(c.self, SHUT_WR) == 0);
	ATF_REQUIRE_EQ((size_t)n, peer_join(&peer));
	conn_close(&c);
}
BOTH_WAYS(cancel_started_write, "a write under way ends short, with what the "
    "peer gets")

ATF_TP_ADD_TCS(tp)
{

	ADD_BOTH(tp, cancel_done);
	ADD_BOTH(tp, cancel_queued_read);
	ADD_BOTH(tp, cancel_posted_reads);
	ADD_BOTH(tp, cancel_running_reads);
	ADD_BOTH(tp, cancel_queued_write);
	ADD_BOTH(tp, cancel_started_write);
	return (atf_no_error());
}
