/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Copyright (c) 2026, The toehold authors
 */

/*
 * What a process does with itself and its memory while requests are
 * outstanding.
 */

#include <sys/param.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "toetest.h"

/* More than the buffers of both ends can grow to. */
#define	PLENTY	(64 << 20)

#define	BUF	65536

/* The requests stay the parent's. */
static void
fork_outstanding(enum path path)
{
	struct aiocb a, b;
	struct conn c;
	size_t at;
	ssize_t n;
	void *ba, *bb;
	pid_t pid;

	conn_open(path, &c);
	ba = memory(4096);
	bb = memory(4096);
	job_read(&a, c.self, ba, 4096);
	job_read(&b, c.self, bb, 4096);
	pause_ms(50);
	/* Neither touches the buffers: toehold(4), CAVEATS. */
	pid = fork();
	ATF_REQUIRE_MSG(pid != -1, "fork: %s", strerror(errno));
	if (pid == 0)
		_exit(aio_error(&a) == EINVAL ? 7 : 1);
	ATF_REQUIRE_EQ_MSG(7, child_wait(pid), "a request was inherited");
	ATF_REQUIRE_MSG(job_busy(&a) && job_busy(&b),
	    "the end of the child ended the requests of its parent");
	send_pattern(c.peer, 60, 0, 50000);
	ATF_REQUIRE(shutdown(c.peer, SHUT_WR) == 0);
	n = job_end(&a);
	ATF_REQUIRE_MSG(n > 0, "the first read: %zd", n);
	pattern_check(ba, 60, 0, n);
	at = n;
	n = job_end(&b);
	ATF_REQUIRE_MSG(n > 0, "the second read: %zd", n);
	pattern_check(bb, 60, at, n);
	at += n;
	ATF_REQUIRE_EQ(50000, drain(c.self, 60, at));
	conn_close(&c);
}
BOTH_WAYS(fork_outstanding, "fork(2) with reads outstanding")

static struct aiocb child_cbs[5];

/* In a child: requests that cannot come to an end. */
static void
submit_and_pause(int fd, void *out)
{
	void *buf;
	int i;

	(void)signal(SIGPIPE, SIG_IGN);
	for (i = 0; i < 4; i++) {
		buf = mmap(NULL, BUF, PROT_READ | PROT_WRITE,
		    MAP_ANON | MAP_PRIVATE, -1, 0);
		if (buf == MAP_FAILED)
			_exit(10);
		job_fill(&child_cbs[i], LIO_READ, fd, buf, BUF);
		if (aio_read(&child_cbs[i]) != 0)
			_exit(11);
	}
	job_fill(&child_cbs[4], LIO_WRITE, fd, out, PLENTY);
	if (aio_write(&child_cbs[4]) != 0)
		_exit(12);
	pause_ms(50);
	for (i = 0; i < 5; i++) {
		if (!job_busy(&child_cbs[i]))
			_exit(13);
	}
}

/*
 * exec(2) ends them all.  What was sent is a prefix of the stream, and no byte
 * that comes afterwards is lost.
 */
static void
exec_outstanding(enum path path)
{
	struct peer peer;
	struct conn c;
	size_t n;
	void *out;
	pid_t pid;

	conn_open(path, &c);
	out = pattern_new(61, 0, PLENTY);
	pid = fork();
	ATF_REQUIRE_MSG(pid != -1, "fork: %s", strerror(errno));
	if (pid == 0) {
		submit_and_pause(c.self, out);
		(void)execl("/usr/bin/true", "true", NULL);
		_exit(14);
	}
	/* Bytes in flight from pages are waited for. */
	peer_drain(&peer, c.peer, 61, 0, 200);
	ATF_REQUIRE_EQ(0, child_wait(pid));
	send_pattern(c.peer, 62, 0, 50000);
	recv_pattern(c.self, 62, 0, 50000);
	ATF_REQUIRE(shutdown(c.self, SHUT_WR) == 0);
	n = peer_join(&peer);
	ATF_REQUIRE_MSG(n > 0 && n < PLENTY, "%zu arrived", n);
	conn_close(&c);
}
BOTH_WAYS(exec_outstanding, "execve(2) with reads and a write outstanding")

/* So does exit(2), and with the last descriptor the connection. */
static void
exit_outstanding(enum path path)
{
	struct peer peer;
	struct conn c;
	size_t n;
	void *out;
	pid_t pid;

	conn_open(path, &c);
	out = pattern_new(61, 0, PLENTY);
	pid = fork();
	ATF_REQUIRE_MSG(pid != -1, "fork: %s", strerror(errno));
	if (pid == 0) {
		submit_and_pause(c.self, out);
		_exit(3);
	}
	ATF_REQUIRE(close(c.self) == 0);
	c.self = -1;
	peer_drain(&peer, c.peer, 61, 0, 200);
	ATF_REQUIRE_EQ(3, child_wait(pid));
	n = peer_join(&peer);
	ATF_REQUIRE_MSG(n > 0 && n < PLENTY, "%zu arrived", n);
	conn_close(&c);
}
BOTH_WAYS(exit_outstanding, "exit(2) with reads and a write outstanding")

/*
 * What comes goes to pages that only the adapter still holds, or the copy
 * finds no memory; either way the stream goes on where the count says.
 */
static void
munmap_posted(enum path path)
{
	struct aiocb cb;
	struct conn c;
	ssize_t n;
	void *buf;

	conn_open(path, &c);
	buf = memory(BUF);
	job_read(&cb, c.self, buf, BUF);
	pause_ms(50);
	ATF_REQUIRE(munmap(buf, BUF) == 0);
	send_pattern(c.peer, 64, 0, 50000);
	ATF_REQUIRE(shutdown(c.peer, SHUT_WR) == 0);
	n = job_end(&cb);
	ATF_REQUIRE_MSG(n > 0 || (n < 0 && errno == EFAULT),
	    "the read: %zd (%s)", n,
	    n < 0 ? strerror(errno) : "end of file");
	ATF_REQUIRE_EQ(50000, drain(c.self, 64, n < 0 ? 0 : n));
	conn_close(&c);
}
BOTH_WAYS(munmap_posted, "a buffer is unmapped under its read")

static void
remap_reused(enum path path)
{
	struct aiocb cb;
	struct conn c;
	uint8_t *buf;
	size_t at;
	ssize_t n;
	int i;

	conn_open(path, &c);
	buf = memory(BUF);
	for (at = 0, i = 0; i < 4; i++, at += n) {
		job_read(&cb, c.self, buf, BUF);
		pause_ms(20);
		send_pattern(c.peer, 65, i * 10000, 10000);
		n = job_end(&cb);
		ATF_REQUIRE_MSG(n > 0, "read %d: %zd", i, n);
		pattern_check(buf, 65, at, n);
		ATF_REQUIRE(munmap(buf, BUF) == 0);
		ATF_REQUIRE(mmap(buf, BUF, PROT_READ | PROT_WRITE,
		    MAP_ANON | MAP_PRIVATE | MAP_FIXED, -1, 0) == buf);
		memset(buf, 0xa5, BUF);
	}
	for (i = 0; i < BUF; i++)
		ATF_REQUIRE_EQ_MSG(0xa5, buf[i], "the new memory was written "
		    "to");
	ATF_REQUIRE(shutdown(c.peer, SHUT_WR) == 0);
	ATF_REQUIRE_EQ(40000, drain(c.self, 65, at));
	conn_close(&c);
}
BOTH_WAYS(remap_reused, "other memory at the address of a buffer used before")

ATF_TP_ADD_TCS(tp)
{

	ADD_BOTH(tp, fork_outstanding);
	ADD_BOTH(tp, exec_outstanding);
	ADD_BOTH(tp, exit_outstanding);
	ADD_BOTH(tp, munmap_posted);
	ADD_BOTH(tp, remap_reused);
	return (atf_no_error());
}
