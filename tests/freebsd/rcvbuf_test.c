/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Copyright (c) 2026, The toehold authors
 */

/*
 * What the receive buffer holds, and readers that wait until it holds more.
 */

#include <sys/param.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "toetest.h"

#define	TOTAL	(1 << 20)
#define	READ	8192

/* Milliseconds for which a peer sends to a program that does not read. */
#define	UNREAD	2000

/* A reader beside the requests, in a thread of its own. */
struct waiter {
	pthread_t thread;
	int	fd;
	int	flags;
	size_t	len;
	size_t	got;
};

static void *
waiter_main(void *arg)
{
	struct waiter *w = arg;
	ssize_t n;
	void *buf;

	buf = memory(w->len);
	while ((n = recv(w->fd, buf, w->len, w->flags)) > 0)
		w->got += n;
	ATF_REQUIRE_MSG(n == 0, "recv: %s", strerror(errno));
	return (NULL);
}

/* All of the stream and its end, while others wait for both. */
static void *
sender_main(void *arg)
{
	const int *fd = arg;

	pause_ms(10);
	send_pattern(*fd, 91, 0, TOTAL);
	ATF_REQUIRE(shutdown(*fd, SHUT_WR) == 0);
	return (NULL);
}

static void
thread_start(pthread_t *t, void *(*run)(void *), void *arg)
{
	int error;

	error = pthread_create(t, NULL, run, arg);
	ATF_REQUIRE_MSG(error == 0, "pthread_create: %s", strerror(error));
}

static void
thread_join(pthread_t t)
{
	int error;

	error = pthread_join(t, NULL);
	ATF_REQUIRE_MSG(error == 0, "pthread_join: %s", strerror(error));
}

/*
 * Who gets which byte is nobody's to say, but between them they get each, and
 * both hear of the end.
 */
static void
beside_waiter(enum path path, int flags, int lowat, size_t len)
{
	struct waiter w;
	struct aiocb cb;
	struct conn c;
	pthread_t sender;
	void *buf;
	size_t got;
	ssize_t n;

	conn_open(path, &c);
	ATF_REQUIRE(setsockopt(c.self, SOL_SOCKET, SO_RCVLOWAT, &lowat,
	    sizeof(lowat)) == 0);
	memset(&w, 0, sizeof(w));
	w.fd = c.self;
	w.flags = flags;
	w.len = len;
	thread_start(&w.thread, waiter_main, &w);
	thread_start(&sender, sender_main, &c.peer);
	buf = memory(READ);
	got = 0;
	do {
		job_read(&cb, c.self, buf, READ);
		n = job_end(&cb);
		ATF_REQUIRE_MSG(n >= 0, "aio_read: %s", strerror(errno));
		got += n;
	} while (n > 0);
	thread_join(w.thread);
	thread_join(sender);
	ATF_REQUIRE_EQ_MSG(TOTAL, got + w.got, "%zu by aio_read, %zu by recv",
	    got, w.got);
	conn_close(&c);
}

static void
waiting_reader(enum path path)
{
	size_t len;

	/* Often there are bytes in the buffer when others are placed. */
	if (path == TOE)
		knob_change(SIM_NODE "ddp_off", 200000);
	for (len = 100; len <= 100000; len *= 10) {
		beside_waiter(path, MSG_WAITALL, 1, len);
		beside_waiter(path, 0, MIN(len, 30000), 100000);
	}
}
BOTH_WAYS(waiting_reader, "requests beside a reader that waits for more")

static int
rcvbuf(int fd)
{
	socklen_t len;
	int size;

	len = sizeof(size);
	ATF_REQUIRE(getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, &len) == 0);
	return (size);
}

/* Send to `fd' as long as it is worth trying; returns the bytes sent. */
static size_t
pour(int fd, u_int seed)
{
	size_t at;
	ssize_t n;
	void *buf;
	int ms;

	nonblocking(fd);
	at = 0;
	for (ms = 0; ms < UNREAD;) {
		buf = pattern_new(seed, at, READ);
		n = send(fd, buf, READ, 0);
		(void)munmap(buf, READ);
		if (n > 0) {
			at += n;
			continue;
		}
		ATF_REQUIRE_MSG(n < 0 && errno == EAGAIN, "send: %s",
		    strerror(errno));
		pause_ms(10);
		ms += 10;
	}
	return (at);
}

/* `to' is not read from while its peer sends what it can. */
static void
unread(enum path path, int from, int to)
{
	size_t sent;
	int before, held, now, slack;

	before = rcvbuf(to);
	sent = pour(from, 92);
	now = rcvbuf(to);
	ATF_REQUIRE(ioctl(to, FIONREAD, &held) == 0);
	/* The kernel's own TCP rounds the window up to what its scale can say. */
	slack = path == TOE ? 0 : 1 << 14;
	ATF_REQUIRE_MSG(held > 0 && held <= now + slack, "%d bytes of %d", held,
	    now);
	/* The kernel's own TCP may have made it larger by a step. */
	if (path == TOE)
		ATF_REQUIRE_EQ_MSG(before, now, "it grew from %d to %d",
		    before, now);
	ATF_REQUIRE(shutdown(from, SHUT_WR) == 0);
	ATF_REQUIRE_EQ(sent, drain(to, 92, 0));
}

static void
unread_default(enum path path)
{
	struct conn c;

	conn_open(path, &c);
	unread(path, c.peer, c.self);
	conn_close(&c);
	conn_open(path, &c);
	unread(path, c.self, c.peer);
	conn_close(&c);
}
BOTH_WAYS(unread_default, "what nobody reads makes no room for more")

static void
unread_listener(enum path path)
{
	const int sizes[] = { 4096, 16384, 65536 };
	struct conn c;
	u_int i;

	for (i = 0; i < nitems(sizes); i++) {
		listener_rcvbuf(sizes[i]);
		conn_open(path, &c);
		unread(path, c.self, c.peer);
		conn_close(&c);
	}
}
BOTH_WAYS(unread_listener, "connections of a listener with a small buffer")

static void
one_byte(enum path path)
{
	struct peer peer;
	struct aiocb cb;
	struct conn c;
	size_t at;
	ssize_t n;
	void *buf;
	int size;

	conn_open(path, &c);
	size = 1;
	ATF_REQUIRE(setsockopt(c.self, SOL_SOCKET, SO_RCVBUF, &size,
	    sizeof(size)) == 0);
	buf = memory(READ);
	peer_send(&peer, c.peer, 93, 0, TOTAL / 8, 0);
	for (at = 0; at < TOTAL / 8; at += n) {
		job_read(&cb, c.self, buf, READ);
		n = job_end(&cb);
		ATF_REQUIRE_MSG(n > 0, "aio_read: %zd (%s)", n,
		    n < 0 ? strerror(errno) : "end of file");
		pattern_check(buf, 93, at, n);
	}
	ATF_REQUIRE_EQ(TOTAL / 8, peer_join(&peer));
	conn_close(&c);
}
/* Not for the kernel's own TCP: it gets a byte each time a timer runs out. */
SCENARIO(toe_one_byte, TOE, one_byte, "a receive buffer of one byte")

ATF_TP_ADD_TCS(tp)
{

	ADD_BOTH(tp, waiting_reader);
	ADD_BOTH(tp, unread_default);
	ADD_BOTH(tp, unread_listener);
	ATF_TP_ADD_TC(tp, toe_one_byte);
	return (atf_no_error());
}
