/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Copyright (c) 2026, The toehold authors
 */

/*
 * Bytes that move: whole, short, in order, from and to memory of every kind.
 */

#include <sys/param.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "toetest.h"

#define	STREAM	(4 << 20)
#define	BUF	(128 << 10)

/* More than the buffers of both ends can grow to. */
#define	PLENTY	(64 << 20)

/* Two reads in flight, to the end of the stream; its length. */
static size_t
read_stream(int fd, u_int seed)
{
	struct aiocb cbs[2];
	void *bufs[2];
	size_t at;
	ssize_t n;
	int i;

	for (i = 0; i < 2; i++) {
		bufs[i] = memory(BUF);
		job_read(&cbs[i], fd, bufs[i], BUF);
	}
	for (at = 0, i = 0;; i = 1 - i) {
		n = job_end(&cbs[i]);
		ATF_REQUIRE_MSG(n >= 0, "read at %zu: %s", at,
		    strerror(errno));
		if (n == 0)
			break;
		pattern_check(bufs[i], seed, at, n);
		at += n;
		job_read(&cbs[i], fd, bufs[i], BUF);
	}
	JOB_ENDS(0, &cbs[1 - i]);
	return (at);
}

struct sender {
	pthread_t thread;
	int	fd;
};

/* Two writes in flight, then the end of the stream. */
static void *
write_stream(void *arg)
{
	struct sender *s = arg;
	struct aiocb cbs[2];
	uint8_t *buf;
	size_t i;

	buf = pattern_new(10, 0, STREAM);
	for (i = 0; i < STREAM / BUF; i++) {
		if (i >= 2)
			JOB_ENDS(BUF, &cbs[i % 2]);
		job_write(&cbs[i % 2], s->fd, buf + i * BUF, BUF);
	}
	JOB_ENDS(BUF, &cbs[i % 2]);
	JOB_ENDS(BUF, &cbs[(i + 1) % 2]);
	ATF_REQUIRE(shutdown(s->fd, SHUT_WR) == 0);
	return (NULL);
}

static void
stream(enum path path)
{
	int64_t jobs[2], octets[2];
	struct sender sender;
	struct conn c;
	bool counted;

	/* The control runs without the module, too. */
	counted = knob_present(STATS_NODE "wrs");
	jobs[0] = counted ? stat_get("rx_aio_ddp_jobs") : 0;
	octets[0] = counted ? stat_get("rx_aio_ddp_octets") : 0;
	jobs[1] = counted ? stat_get("tx_aio_jobs") : 0;
	octets[1] = counted ? stat_get("tx_aio_octets") : 0;
	conn_open(path, &c);
	sender.fd = c.peer;
	ATF_REQUIRE_EQ(0, pthread_create(&sender.thread, NULL, write_stream,
	    &sender));
	ATF_REQUIRE_EQ(STREAM, read_stream(c.self, 10));
	ATF_REQUIRE_EQ(0, pthread_join(sender.thread, NULL));
	conn_close(&c);
	if (!counted)
		return;
	jobs[0] = stat_get("rx_aio_ddp_jobs") - jobs[0];
	octets[0] = stat_get("rx_aio_ddp_octets") - octets[0];
	jobs[1] = stat_get("tx_aio_jobs") - jobs[1];
	octets[1] = stat_get("tx_aio_octets") - octets[1];
	if (path == TOE) {
		ATF_CHECK_MSG(octets[0] > STREAM / 2, "of %d octets %jd were "
		    "placed", STREAM, (intmax_t)octets[0]);
		ATF_CHECK_EQ_MSG(STREAM, octets[1], "%jd octets were sent "
		    "from pages", (intmax_t)octets[1]);
		ATF_CHECK_EQ(STREAM / BUF, jobs[1]);
	} else {
		ATF_CHECK_EQ(0, jobs[0]);
		ATF_CHECK_EQ(0, octets[0]);
		ATF_CHECK_EQ(0, jobs[1]);
		ATF_CHECK_EQ(0, octets[1]);
	}
}
BOTH_WAYS(stream, "a stream by aio_read(2) and aio_write(2)")

static void
two_reads(enum path path)
{
	struct aiocb a, b;
	struct conn c;
	void *ba, *bb;

	conn_open(path, &c);
	ba = memory(512);
	bb = memory(512);
	job_read(&a, c.self, ba, 512);
	job_read(&b, c.self, bb, 512);
	send_pattern(c.peer, 11, 0, 512);
	JOB_ENDS(512, &a);
	pause_ms(100);
	ATF_REQUIRE_MSG(job_busy(&b), "the second ended with the first");
	send_pattern(c.peer, 11, 512, 512);
	JOB_ENDS(512, &b);
	pattern_check(ba, 11, 0, 512);
	pattern_check(bb, 11, 512, 512);
	conn_close(&c);
}
BOTH_WAYS(two_reads, "what arrives for one read leaves the next waiting")

static void
short_read(enum path path)
{
	struct aiocb cb;
	struct conn c;
	void *buf;
	int i;

	conn_open(path, &c);
	buf = memory(65536);
	for (i = 0; i < 4; i++) {
		job_read(&cb, c.self, buf, 65536);
		pause_ms(10);
		send_pattern(c.peer, 12, i * 100, 100);
		JOB_ENDS(100, &cb);
		pattern_check(buf, 12, i * 100, 100);
	}
	conn_close(&c);
}
BOTH_WAYS(short_read, "a read ends with what there is")

static void
short_write(enum path path)
{
	struct aiocb cb;
	struct peer peer;
	struct conn c;
	ssize_t n;
	void *buf;

	conn_open(path, &c);
	buf = pattern_new(13, 0, PLENTY);
	nonblocking(c.self);
	job_write(&cb, c.self, buf, PLENTY);
	/* Sent from its pages, it ends when the peer has taken the bytes. */
	peer_drain(&peer, c.peer, 13, 0, 500);
	n = job_end(&cb);
	ATF_REQUIRE_MSG(n > 0 && n < PLENTY, "%zd of %d (%s)", n, PLENTY,
	    n < 0 ? strerror(errno) : "no error");
	ATF_REQUIRE(shutdown(c.self, SHUT_WR) == 0);
	ATF_REQUIRE_EQ((size_t)n, peer_join(&peer));
	conn_close(&c);
}
BOTH_WAYS(short_write, "a write on a non-blocking socket takes what fits")

static void
large_write(enum path path)
{
	struct aiocb cb;
	struct peer peer;
	struct conn c;
	void *buf;

	conn_open(path, &c);
	buf = pattern_new(14, 0, PLENTY);
	job_write(&cb, c.self, buf, PLENTY);
	pause_ms(100);
	ATF_REQUIRE_MSG(job_busy(&cb), "%d bytes went nowhere", PLENTY);
	peer_drain(&peer, c.peer, 14, 0, 0);
	JOB_ENDS(PLENTY, &cb);
	ATF_REQUIRE(shutdown(c.self, SHUT_WR) == 0);
	ATF_REQUIRE_EQ(PLENTY, peer_join(&peer));
	conn_close(&c);
}
BOTH_WAYS(large_write, "a write larger than the socket buffer is written "
    "whole")

static void
wait_readable(int fd)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };

	ATF_REQUIRE_EQ(1, poll(&pfd, 1, 10000));
}

static void
zero_length(enum path path)
{
	struct aiocb cb;
	struct conn c;
	void *buf;

	conn_open(path, &c);
	buf = memory(4096);
	job_write(&cb, c.self, buf, 0);
	JOB_ENDS(0, &cb);
	send_pattern(c.peer, 19, 0, 100);
	wait_readable(c.self);
	job_read(&cb, c.self, buf, 0);
	JOB_ENDS(0, &cb);
	job_read(&cb, c.self, buf, 4096);
	JOB_ENDS(100, &cb);
	pattern_check(buf, 19, 0, 100);
	conn_close(&c);
}
BOTH_WAYS(zero_length, "requests for no byte end with none, and take none")

static void
read_only_target(enum path path)
{
	struct aiocb cb;
	struct conn c;
	void *buf, *ro;

	conn_open(path, &c);
	send_pattern(c.peer, 15, 0, 1000);
	wait_readable(c.self);
	ro = memory(4096);
	ATF_REQUIRE(mprotect(ro, 4096, PROT_READ) == 0);
	job_read(&cb, c.self, ro, 4096);
	JOB_FAILS(EFAULT, &cb);
	ATF_REQUIRE(munmap(ro, 4096) == 0);
	job_read(&cb, c.self, ro, 4096);
	JOB_FAILS(EFAULT, &cb);
	buf = memory(4096);
	job_read(&cb, c.self, buf, 4096);
	JOB_ENDS(1000, &cb);
	pattern_check(buf, 15, 0, 1000);
	conn_close(&c);
}
BOTH_WAYS(read_only_target, "a read into memory that cannot be written to "
    "fails, and the stream keeps the bytes")

static void
read_only_source(enum path path)
{
	struct aiocb cb;
	struct conn c;
	void *buf;

	conn_open(path, &c);
	buf = pattern_new(16, 0, 50000);
	ATF_REQUIRE(mprotect(buf, 50000, PROT_READ) == 0);
	job_write(&cb, c.self, buf, 50000);
	recv_pattern(c.peer, 16, 0, 50000);
	JOB_ENDS(50000, &cb);
	conn_close(&c);
}
BOTH_WAYS(read_only_source, "a write from memory that cannot be written to")

#define	PART	30000
#define	PARTS	40

static void *
write_mixed(void *arg)
{
	struct sender *s = arg;
	struct aiocb cb;
	uint8_t *buf;
	int i;

	buf = pattern_new(17, 0, PART * PARTS);
	for (i = 0; i < PARTS; i++) {
		if (i % 2 == 0)
			send_pattern(s->fd, 17, i * PART, PART);
		else {
			job_write(&cb, s->fd, buf + i * PART, PART);
			JOB_ENDS(PART, &cb);
		}
	}
	ATF_REQUIRE(shutdown(s->fd, SHUT_WR) == 0);
	return (NULL);
}

static void
mixed(enum path path)
{
	struct sender sender;
	struct aiocb cb;
	struct conn c;
	size_t at;
	ssize_t n;
	void *buf;
	int i;

	conn_open(path, &c);
	sender.fd = c.peer;
	ATF_REQUIRE_EQ(0, pthread_create(&sender.thread, NULL, write_mixed,
	    &sender));
	buf = memory(PART);
	for (at = 0, i = 0;; at += n, i++) {
		if (i % 2 == 0)
			n = recv(c.self, buf, PART / 2, 0);
		else {
			job_read(&cb, c.self, buf, PART);
			n = job_end(&cb);
		}
		ATF_REQUIRE_MSG(n >= 0, "at %zu: %s", at, strerror(errno));
		if (n == 0)
			break;
		pattern_check(buf, 17, at, n);
	}
	ATF_REQUIRE_EQ(PART * PARTS, at);
	ATF_REQUIRE_EQ(0, pthread_join(sender.thread, NULL));
	conn_close(&c);
}
BOTH_WAYS(mixed, "aio and plain calls in turns keep the order")

#define	CONNS		64
#define	CONN_LEN	100000

/* The requests of a connection. */
struct work {
	struct conn	c;
	struct aiocb	read;
	struct aiocb	write[2];
	void		*in;
};

/* Both directions of all of them at once, then the bytes of each. */
static void
many_connections(enum path path)
{
	struct work *w, *all;
	void *out;
	ssize_t n;

	all = memory(CONNS * sizeof(*all));
	out = pattern_new(18, 0, CONN_LEN);
	for (w = all; w < all + CONNS; w++) {
		conn_open(path, &w->c);
		w->in = memory(CONN_LEN);
		job_read(&w->read, w->c.self, w->in, CONN_LEN);
		job_write(&w->write[0], w->c.self, out, CONN_LEN);
		job_write(&w->write[1], w->c.peer, out, CONN_LEN);
	}
	for (w = all; w < all + CONNS; w++) {
		n = job_end(&w->read);
		ATF_REQUIRE_MSG(n > 0, "connection %td: %zd (%s)", w - all, n,
		    n < 0 ? strerror(errno) : "end of file");
		pattern_check(w->in, 18, 0, n);
		recv_pattern(w->c.self, 18, n, CONN_LEN - n);
		recv_pattern(w->c.peer, 18, 0, CONN_LEN);
		JOB_ENDS(CONN_LEN, &w->write[0]);
		JOB_ENDS(CONN_LEN, &w->write[1]);
		conn_close(&w->c);
	}
}
BOTH_WAYS(many_connections, "64 connections at once, both directions of each")

ATF_TP_ADD_TCS(tp)
{

	ADD_BOTH(tp, stream);
	ADD_BOTH(tp, two_reads);
	ADD_BOTH(tp, short_read);
	ADD_BOTH(tp, short_write);
	ADD_BOTH(tp, large_write);
	ADD_BOTH(tp, zero_length);
	ADD_BOTH(tp, read_only_target);
	ADD_BOTH(tp, read_only_source);
	ADD_BOTH(tp, mixed);
	ADD_BOTH(tp, many_connections);
	return (atf_no_error());
}
