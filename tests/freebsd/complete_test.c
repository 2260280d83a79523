/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Copyright (c) 2026, The toehold authors
 */

/*
 * Ways to learn that a request has ended.
 */

#include <sys/param.h>

#include <errno.h>
#include <string.h>

#include "toetest.h"

#define	LEN	20000

static void
check_returned(struct aiocb *cb)
{

	ATF_REQUIRE_MSG(aio_return(cb) == -1 && errno == EINVAL,
	    "a result was returned twice");
}

/* The request is there before the data. */
static void
read_by(enum path path, const struct style *style)
{
	struct aiocb cb;
	struct peer peer;
	struct conn c;
	size_t at;
	ssize_t n;
	void *buf;

	conn_open(path, &c);
	buf = memory(LEN);
	peer_send(&peer, c.peer, 1, 0, LEN, 100);
	for (at = 0; at < LEN; at += n) {
		job_fill(&cb, LIO_READ, c.self, buf, LEN);
		style->arm(&cb);
		style->submit(&cb);
		n = style->wait(&cb);
		ATF_REQUIRE_MSG(n > 0, "%s at %zu: %zd (%s)", style->name, at,
		    n, n < 0 ? strerror(errno) : "end of file");
		check_returned(&cb);
		pattern_check(buf, 1, at, n);
	}
	ATF_REQUIRE_EQ(LEN, at);
	ATF_REQUIRE_EQ(LEN, peer_join(&peer));
	conn_close(&c);
}

static void
write_by(enum path path, const struct style *style)
{
	struct aiocb cb;
	struct conn c;
	ssize_t n;
	void *buf;

	conn_open(path, &c);
	buf = pattern_new(2, 0, LEN);
	job_fill(&cb, LIO_WRITE, c.self, buf, LEN);
	style->arm(&cb);
	style->submit(&cb);
	n = style->wait(&cb);
	ATF_REQUIRE_EQ_MSG(LEN, n, "%s: %zd (%s)", style->name, n,
	    n < 0 ? strerror(errno) : "no error");
	check_returned(&cb);
	recv_pattern(c.peer, 2, 0, LEN);
	conn_close(&c);
}

#define	BY(style)							\
static void								\
read_ ## style(enum path path)						\
{									\
									\
	read_by(path, &style_ ## style);				\
}									\
static void								\
write_ ## style(enum path path)						\
{									\
									\
	write_by(path, &style_ ## style);				\
}									\
BOTH_WAYS(read_ ## style, "aio_read(2) completed by " #style)		\
BOTH_WAYS(write_ ## style, "aio_write(2) completed by " #style)

BY(poll)
BY(signal)
BY(suspend)
BY(kevent)
BY(lio_wait)
BY(lio_nowait)
BY(waitcomplete)

/* One list with requests of both directions. */
static void
lio_mixed(enum path path)
{
	struct aiocb cbs[2], *list[2] = { &cbs[0], &cbs[1] };
	struct peer peer;
	struct conn c;
	void *in, *out;
	ssize_t n;

	conn_open(path, &c);
	in = memory(LEN);
	out = pattern_new(3, 0, LEN);
	peer_send(&peer, c.peer, 4, 0, 1000, 100);
	job_fill(&cbs[0], LIO_READ, c.self, in, LEN);
	job_fill(&cbs[1], LIO_WRITE, c.self, out, LEN);
	ATF_REQUIRE_MSG(lio_listio(LIO_WAIT, list, nitems(list), NULL) == 0,
	    "lio_listio: %s", strerror(errno));
	n = aio_return(&cbs[0]);
	ATF_REQUIRE_MSG(n > 0, "the read: %zd", n);
	pattern_check(in, 4, 0, n);
	recv_pattern(c.self, 4, n, 1000 - n);
	ATF_REQUIRE_EQ(LEN, aio_return(&cbs[1]));
	recv_pattern(c.peer, 3, 0, LEN);
	ATF_REQUIRE_EQ(1000, peer_join(&peer));
	conn_close(&c);
}
BOTH_WAYS(lio_mixed, "lio_listio(2) of a read and a write")

ATF_TP_ADD_TCS(tp)
{

	ADD_BOTH(tp, read_poll);
	ADD_BOTH(tp, read_signal);
	ADD_BOTH(tp, read_suspend);
	ADD_BOTH(tp, read_kevent);
	ADD_BOTH(tp, read_lio_wait);
	ADD_BOTH(tp, read_lio_nowait);
	ADD_BOTH(tp, read_waitcomplete);
	ADD_BOTH(tp, write_poll);
	ADD_BOTH(tp, write_signal);
	ADD_BOTH(tp, write_suspend);
	ADD_BOTH(tp, write_kevent);
	ADD_BOTH(tp, write_lio_wait);
	ADD_BOTH(tp, write_lio_nowait);
	ADD_BOTH(tp, write_waitcomplete);
	ADD_BOTH(tp, lio_mixed);
	return (atf_no_error());
}
