/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Copyright (c) 2026, The toehold authors
 */

/*
 * Connections that end while requests are outstanding.
 */

#include <sys/param.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "toetest.h"

/* More than the buffers of both ends can grow to. */
#define	PLENTY	(64 << 20)

/* shutdown(2) forgets the requests of the generic path before this release. */
#define	SHUTDOWN_KEEPS_AIO	1400000

#define	READS	4

static void
submit_reads(struct aiocb *cbs, void **bufs, int fd, int n)
{
	int i;

	for (i = 0; i < n; i++) {
		bufs[i] = memory(4096);
		job_read(&cbs[i], fd, bufs[i], 4096);
	}
	pause_ms(50);
}

static void
eof_reads(enum path path)
{
	struct aiocb cbs[READS];
	struct conn c;
	void *bufs[READS];
	int i;

	conn_open(path, &c);
	submit_reads(cbs, bufs, c.self, READS);
	ATF_REQUIRE(close(c.peer) == 0);
	c.peer = -1;
	for (i = 0; i < READS; i++)
		JOB_ENDS(0, &cbs[i]);
	conn_close(&c);
}
BOTH_WAYS(eof_reads, "every queued read hears of the end of the stream")

static void
eof_after_data(enum path path)
{
	struct aiocb cbs[READS];
	struct conn c;
	size_t at;
	ssize_t n;
	void *bufs[READS];
	int i;

	conn_open(path, &c);
	submit_reads(cbs, bufs, c.self, READS);
	send_pattern(c.peer, 71, 0, 5000);
	ATF_REQUIRE(close(c.peer) == 0);
	c.peer = -1;
	for (at = 0, n = 1, i = 0; i < READS; i++, at += n) {
		bool end = n == 0;

		n = job_end(&cbs[i]);
		ATF_REQUIRE_MSG(n >= 0, "read %d: %s", i, strerror(errno));
		ATF_REQUIRE_MSG(!end || n == 0, "data after the end of file");
		pattern_check(bufs[i], 71, at, n);
	}
	/* Whatever was left, if it came in many pieces. */
	ATF_REQUIRE_EQ(5000, drain(c.self, 71, at));
	conn_close(&c);
}
BOTH_WAYS(eof_after_data, "data first, then the end, in the order of the reads")

/* The first gets the error, as read(2) would. */
static void
reset_reads(enum path path)
{
	struct aiocb cbs[READS];
	struct conn c;
	void *bufs[READS];
	int i;

	conn_open(path, &c);
	submit_reads(cbs, bufs, c.self, READS);
	conn_reset(c.peer);
	c.peer = -1;
	JOB_FAILS(ECONNRESET, &cbs[0]);
	for (i = 1; i < READS; i++)
		JOB_ENDS(0, &cbs[i]);
	conn_close(&c);
}
BOTH_WAYS(reset_reads, "a reset fails the first read and ends the others")

/*
 * A write that was under way ends with the error or with what it had sent, one
 * that had not begun with an error.
 */
static void
reset_writes(enum path path)
{
	struct aiocb a, b;
	struct conn c;
	ssize_t n;
	void *buf;

	conn_open(path, &c);
	buf = pattern_new(73, 0, PLENTY);
	job_write(&a, c.self, buf, PLENTY);
	job_write(&b, c.self, buf, 1000);
	pause_ms(100);
	ATF_REQUIRE(job_busy(&a) && job_busy(&b));
	conn_reset(c.peer);
	c.peer = -1;
	n = job_end(&a);
	ATF_REQUIRE_MSG((n >= 0 && n < PLENTY) ||
	    (n < 0 && (errno == ECONNRESET || errno == EPIPE)),
	    "the write under way: %zd (%s)", n,
	    n < 0 ? strerror(errno) : "no error");
	n = job_end(&b);
	ATF_REQUIRE_MSG(n < 0 && (errno == ECONNRESET || errno == EPIPE),
	    "the write behind it: %zd (%s)", n,
	    n < 0 ? strerror(errno) : "no error");
	conn_close(&c);
}
BOTH_WAYS(reset_writes, "a reset ends writes")

static void
shutdown_read(enum path path)
{
	struct aiocb cb, cbs[READS];
	struct conn c;
	void *buf, *bufs[READS];
	char byte;
	int i;

	if (path == LOOPBACK && getosreldate() < SHUTDOWN_KEEPS_AIO)
		atf_tc_skip("the kernel of this release would panic");
	conn_open(path, &c);
	submit_reads(cbs, bufs, c.self, READS);
	ATF_REQUIRE(shutdown(c.self, SHUT_RD) == 0);
	for (i = 0; i < READS; i++)
		JOB_ENDS(0, &cbs[i]);
	ATF_REQUIRE_EQ(0, recv(c.self, &byte, 1, 0));
	if (getosreldate() >= SHUTDOWN_KEEPS_AIO) {
		job_read(&cb, c.self, bufs[0], 4096);
		JOB_ENDS(0, &cb);
	}
	/* The other direction is none the worse. */
	buf = pattern_new(74, 0, 10000);
	job_write(&cb, c.self, buf, 10000);
	recv_pattern(c.peer, 74, 0, 10000);
	JOB_ENDS(10000, &cb);
	conn_close(&c);
}
BOTH_WAYS(shutdown_read, "the own reading side is closed under reads")

static void
shutdown_write(enum path path)
{
	struct aiocb a, b;
	struct peer peer;
	struct conn c;
	size_t got;
	ssize_t n;
	void *buf;
	int error;

	conn_open(path, &c);
	buf = pattern_new(75, 0, PLENTY);
	job_write(&a, c.self, buf, PLENTY);
	job_write(&b, c.self, buf, 1000);
	pause_ms(100);
	ATF_REQUIRE(job_busy(&a) && job_busy(&b));
	ATF_REQUIRE(shutdown(c.self, SHUT_WR) == 0);
	peer_drain(&peer, c.peer, 75, 0, 100);
	n = job_end(&a);
	error = errno;
	JOB_FAILS(EPIPE, &b);
	got = peer_join(&peer);
	ATF_REQUIRE_MSG(got > 0 && got < PLENTY, "%zu arrived", got);
	ATF_REQUIRE_MSG(n < 0 ? error == EPIPE : (size_t)n == got,
	    "the write under way: %zd (%s), and %zu arrived", n,
	    n < 0 ? strerror(error) : "no error", got);
	job_write(&a, c.self, buf, 1);
	JOB_FAILS(EPIPE, &a);
	conn_close(&c);
}
BOTH_WAYS(shutdown_write, "the own writing side is closed under writes")

static void
half_close(enum path path)
{
	struct aiocb cb, write;
	struct peer peer;
	struct conn c;
	size_t at;
	ssize_t n;
	void *buf, *out;

	conn_open(path, &c);
	buf = memory(65536);
	job_read(&cb, c.self, buf, 65536);
	out = pattern_new(77, 0, 10000);
	job_write(&write, c.self, out, 10000);
	JOB_ENDS(10000, &write);
	ATF_REQUIRE(shutdown(c.self, SHUT_WR) == 0);
	ATF_REQUIRE_EQ(10000, drain(c.peer, 77, 0));
	peer_send(&peer, c.peer, 76, 0, 500000, 0);
	for (at = 0; at < 500000; at += n) {
		n = job_end(&cb);
		ATF_REQUIRE_MSG(n > 0, "read at %zu: %zd", at, n);
		pattern_check(buf, 76, at, n);
		job_read(&cb, c.self, buf, 65536);
	}
	ATF_REQUIRE_EQ(500000, peer_join(&peer));
	ATF_REQUIRE(close(c.peer) == 0);
	c.peer = -1;
	JOB_ENDS(0, &cb);
	conn_close(&c);
}
BOTH_WAYS(half_close, "reads go on after the own end of the stream was sent")

/* The error was told once, by the first read. */
static void
after_reset(enum path path)
{
	struct aiocb cb;
	struct conn c;
	void *buf;
	int i;

	conn_open(path, &c);
	buf = memory(4096);
	job_read(&cb, c.self, buf, 4096);
	pause_ms(50);
	conn_reset(c.peer);
	c.peer = -1;
	JOB_FAILS(ECONNRESET, &cb);
	for (i = 0; i < 2; i++) {
		job_read(&cb, c.self, buf, 4096);
		JOB_ENDS(0, &cb);
		job_write(&cb, c.self, buf, 4096);
		JOB_FAILS(EPIPE, &cb);
	}
	conn_close(&c);
}
BOTH_WAYS(after_reset, "new requests on a connection that was reset")

/* Both directions are closed, this end in TIME_WAIT. */
static void
after_fin(enum path path)
{
	struct aiocb cb;
	struct conn c;
	void *buf;
	int i;

	conn_open(path, &c);
	buf = memory(4096);
	ATF_REQUIRE(shutdown(c.self, SHUT_WR) == 0);
	ATF_REQUIRE_EQ(0, drain(c.peer, 0, 0));
	ATF_REQUIRE(close(c.peer) == 0);
	c.peer = -1;
	job_read(&cb, c.self, buf, 4096);
	JOB_ENDS(0, &cb);
	pause_ms(50);
	for (i = 0; i < 2; i++) {
		job_read(&cb, c.self, buf, 4096);
		JOB_ENDS(0, &cb);
		job_write(&cb, c.self, buf, 4096);
		JOB_FAILS(EPIPE, &cb);
	}
	conn_close(&c);
}
BOTH_WAYS(after_fin, "new requests on a connection closed in both directions")

/* What comes for nobody makes no receive buffer larger. */
static void
unread(enum path path)
{
	struct conn c;
	struct peer peer;
	socklen_t len;
	int after, before, held;

	conn_open(path, &c);
	len = sizeof(before);
	ATF_REQUIRE(getsockopt(c.self, SOL_SOCKET, SO_RCVBUF, &before, &len) ==
	    0);
	peer_write(&peer, c.peer, 77, 0, 8 << 20, 0);
	pause_ms(2000);
	len = sizeof(after);
	ATF_REQUIRE(getsockopt(c.self, SOL_SOCKET, SO_RCVBUF, &after, &len) ==
	    0);
	ATF_REQUIRE(ioctl(c.self, FIONREAD, &held) == 0);
	ATF_CHECK_MSG(path == LOOPBACK || after == before,
	    "so_rcv grew from %d to %d", before, after);
	ATF_CHECK_MSG(held <= after, "%d bytes in a buffer of %d", held, after);
	recv_pattern(c.self, 77, 0, 8 << 20);
	ATF_REQUIRE_EQ(8 << 20, peer_join(&peer));
	conn_close(&c);
}
BOTH_WAYS(unread, "a peer that sends to a program that does not read")

ATF_TP_ADD_TCS(tp)
{

	ADD_BOTH(tp, eof_reads);
	ADD_BOTH(tp, eof_after_data);
	ADD_BOTH(tp, reset_reads);
	ADD_BOTH(tp, reset_writes);
	ADD_BOTH(tp, shutdown_read);
	ADD_BOTH(tp, shutdown_write);
	ADD_BOTH(tp, half_close);
	ADD_BOTH(tp, after_reset);
	ADD_BOTH(tp, after_fin);
	ADD_BOTH(tp, unread);
	return (atf_no_error());
}
