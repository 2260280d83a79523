/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Copyright (c) 2026, The toehold authors
 */

#include <sys/param.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "toetest.h"

#define	CHUNK	65536

/* Seconds that a child may take to end. */
#define	CHILD_PATIENCE	30

/*
 * Byte of the stream at an offset: a multiplicative hash of the block of 8
 * bytes, so that no page, segment or page pod looks like another.
 */
static inline uint8_t
pattern_byte(u_int seed, uint64_t off)
{
	uint64_t block;

	block = (off / 8 + seed) * UINT64_C(0x9e3779b97f4a7c15);
	block ^= block >> 29;
	return (block >> (off % 8 * 8));
}

/* Zeroed pages of their own. */
void *
memory(size_t len)
{
	void *p;

	p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_ANON | MAP_PRIVATE, -1,
	    0);
	ATF_REQUIRE_MSG(p != MAP_FAILED, "mmap: %s", strerror(errno));
	return (p);
}

void
pattern_fill(void *buf, u_int seed, size_t off, size_t len)
{
	uint8_t *p = buf;
	size_t i;

	for (i = 0; i < len; i++)
		p[i] = pattern_byte(seed, off + i);
}

void *
pattern_new(u_int seed, size_t off, size_t len)
{
	void *p;

	p = memory(len);
	pattern_fill(p, seed, off, len);
	return (p);
}

void
pattern_check(const void *buf, u_int seed, size_t off, size_t len)
{
	const uint8_t *p = buf;
	size_t i;

	for (i = 0; i < len; i++) {
		if (p[i] != pattern_byte(seed, off + i))
			atf_tc_fail("byte %zu of the stream is %#x, not %#x",
			    off + i, p[i], pattern_byte(seed, off + i));
	}
}

/* Write a part of the stream, all of it. */
void
send_pattern(int fd, u_int seed, size_t off, size_t len)
{
	uint8_t buf[CHUNK];
	size_t done, n;
	ssize_t sent;

	while (len > 0) {
		n = MIN(len, sizeof(buf));
		pattern_fill(buf, seed, off, n);
		for (done = 0; done < n; done += sent) {
			sent = send(fd, buf + done, n - done, MSG_NOSIGNAL);
			if (sent < 0)
				atf_tc_fail("send at %zu: %s", off + done,
				    strerror(errno));
		}
		off += n;
		len -= n;
	}
}

/* One byte that tells the other end to go on. */
void
send_mark(int fd)
{

	ATF_REQUIRE_MSG(send(fd, "!", 1, MSG_NOSIGNAL) == 1, "send: %s",
	    strerror(errno));
}

void
recv_mark(int fd)
{
	ssize_t n;
	char c;

	n = recv(fd, &c, 1, 0);
	if (n != 1 || c != '!')
		atf_tc_fail("recv of a mark: %zd (%s)", n,
		    n < 0 ? strerror(errno) : "no error");
}

/* Read a part of the stream, all of it. */
void
recv_pattern(int fd, u_int seed, size_t off, size_t len)
{
	uint8_t buf[CHUNK];
	ssize_t n;

	while (len > 0) {
		n = recv(fd, buf, MIN(len, sizeof(buf)), 0);
		if (n <= 0)
			atf_tc_fail("recv at %zu: %s", off,
			    n < 0 ? strerror(errno) : "end of file");
		pattern_check(buf, seed, off, n);
		off += n;
		len -= n;
	}
}

static size_t
drain_until(int fd, u_int seed, size_t off, bool reset_is_end)
{
	uint8_t buf[CHUNK];
	ssize_t n;

	for (;;) {
		n = recv(fd, buf, sizeof(buf), 0);
		if (n == 0 || (n < 0 && reset_is_end && errno == ECONNRESET))
			return (off);
		if (n < 0)
			atf_tc_fail("recv at %zu: %s", off, strerror(errno));
		pattern_check(buf, seed, off, n);
		off += n;
	}
}

/* Read to the end of the stream; returns its length. */
size_t
drain(int fd, u_int seed, size_t off)
{

	return (drain_until(fd, seed, off, false));
}

/* The same, where the end may be a reset. */
size_t
drain_any(int fd, u_int seed, size_t off)
{

	return (drain_until(fd, seed, off, true));
}

static void *
peer_main(void *arg)
{
	struct peer *p = arg;

	pause_ms(p->delay);
	p->moved = p->run(p);
	return (NULL);
}

static void
peer_start(struct peer *p, int fd, u_int seed, size_t off, size_t len,
    int delay, size_t (*run)(struct peer *))
{
	int error;

	memset(p, 0, sizeof(*p));
	p->fd = fd;
	p->seed = seed;
	p->off = off;
	p->len = len;
	p->delay = delay;
	p->run = run;
	error = pthread_create(&p->thread, NULL, peer_main, p);
	ATF_REQUIRE_MSG(error == 0, "pthread_create: %s", strerror(error));
}

static size_t
run_send(struct peer *p)
{

	send_pattern(p->fd, p->seed, p->off, p->len);
	return (p->len);
}

static size_t
run_write(struct peer *p)
{
	struct aiocb cb;
	void *buf;

	buf = pattern_new(p->seed, p->off, p->len);
	job_write(&cb, p->fd, buf, p->len);
	JOB_ENDS(p->len, &cb);
	return (p->len);
}

static size_t
run_drain(struct peer *p)
{

	return (drain_any(p->fd, p->seed, p->off));
}

/* A thread that sends a part of the stream with send(2). */
void
peer_send(struct peer *p, int fd, u_int seed, size_t off, size_t len,
    int delay)
{

	peer_start(p, fd, seed, off, len, delay, run_send);
}

/* One that sends it with a single aio_write(2). */
void
peer_write(struct peer *p, int fd, u_int seed, size_t off, size_t len,
    int delay)
{

	peer_start(p, fd, seed, off, len, delay, run_write);
}

/* One that reads to the end of the stream. */
void
peer_drain(struct peer *p, int fd, u_int seed, size_t off, int delay)
{

	peer_start(p, fd, seed, off, 0, delay, run_drain);
}

/* Wait for such a thread; returns bytes sent, or the offset it read up to. */
size_t
peer_join(struct peer *p)
{
	int error;

	error = pthread_join(p->thread, NULL);
	ATF_REQUIRE_MSG(error == 0, "pthread_join: %s", strerror(error));
	return (p->moved);
}

void
pause_ms(int ms)
{
	struct timespec ts;

	ts.tv_sec = ms / 1000;
	ts.tv_nsec = ms % 1000 * 1000000L;
	while (nanosleep(&ts, &ts) != 0 && errno == EINTR)
		;
}

/* The exit status of a child, which has to end soon. */
int
child_wait(pid_t pid)
{
	int ms, status;
	pid_t got;

	for (ms = 0; ms < CHILD_PATIENCE * 1000; ms += 10) {
		got = waitpid(pid, &status, WNOHANG);
		ATF_REQUIRE_MSG(got >= 0, "waitpid: %s", strerror(errno));
		if (got == pid) {
			ATF_REQUIRE_MSG(WIFEXITED(status),
			    "the child died of signal %d", WTERMSIG(status));
			return (WEXITSTATUS(status));
		}
		pause_ms(10);
	}
	(void)kill(pid, SIGKILL);
	atf_tc_fail("the child did not end in %d seconds", CHILD_PATIENCE);
}
