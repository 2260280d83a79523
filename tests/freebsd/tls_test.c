/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Copyright (c) 2026, The toehold authors
 */

/*
 * Sockets with a TLS session of the kernel's.  The other end deciphers with
 * the same key, so that a byte that went past the session is seen.
 */

#include <sys/param.h>
#include <sys/socket.h>
#include <sys/sysctl.h>
#if __has_include(<sys/ktls.h>)
#include <sys/ktls.h>
#include <crypto/cryptodev.h>
#define	HAVE_KTLS
#endif
#include <netinet/in.h>
#include <netinet/tcp.h>

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "toetest.h"

#define	TOTAL	300000

#ifdef HAVE_KTLS

/* Begin a session of TLS 1.2 with AES-128-GCM. */
static int
session_try(int fd, int option)
{
	static const uint8_t key[16] = "sixteen bytes...";
	static const uint8_t salt[TLS_AEAD_GCM_LEN] = { 1, 2, 3, 4 };
	struct tls_enable en;

	memset(&en, 0, sizeof(en));
	en.cipher_key = key;
	en.cipher_key_len = sizeof(key);
	en.iv = salt;
	en.iv_len = sizeof(salt);
	en.cipher_algorithm = CRYPTO_AES_NIST_GCM_16;
	en.tls_vmajor = TLS_MAJOR_VER_ONE;
	en.tls_vminor = TLS_MINOR_VER_TWO;
	return (setsockopt(fd, IPPROTO_TCP, option, &en, sizeof(en)));
}

static void
session(int fd, int option)
{
	if (session_try(fd, option) == 0)
		return;
	if (errno == ENOTSUP || errno == ENOPROTOOPT || errno == ENXIO)
		atf_tc_skip("this kernel has no TLS: %s", strerror(errno));
	atf_tc_fail("TLS session: %s", strerror(errno));
}

/* The rest of a TLS stream, by records, in another thread. */
static size_t
records(struct peer *p)
{
	uint8_t buf[65536], control[256];
	struct msghdr msg;
	struct iovec iov;
	ssize_t n;
	size_t at;

	for (at = p->off; at < p->off + p->len; at += n) {
		iov.iov_base = buf;
		iov.iov_len = sizeof(buf);
		memset(&msg, 0, sizeof(msg));
		msg.msg_iov = &iov;
		msg.msg_iovlen = 1;
		msg.msg_control = control;
		msg.msg_controllen = sizeof(control);
		n = recvmsg(p->fd, &msg, 0);
		if (n <= 0)
			atf_tc_fail("record at %zu: %s", at,
			    n < 0 ? strerror(errno) : "end of file");
		pattern_check(buf, p->seed, at, n);
	}
	return (at - p->off);
}

static void *
records_main(void *arg)
{
	struct peer *p = arg;

	p->moved = records(p);
	return (NULL);
}

static void
records_start(struct peer *p, int fd, u_int seed, size_t off, size_t len)
{

	memset(p, 0, sizeof(*p));
	p->fd = fd;
	p->seed = seed;
	p->off = off;
	p->len = len;
	ATF_REQUIRE(pthread_create(&p->thread, NULL, records_main, p) == 0);
}

/* Large writes and small ones, with plain ones between. */
static void
writes(enum path path)
{
	static const size_t sizes[] = { 100, 70000, 16384, 1, 40000 };
	struct aiocb cb;
	struct conn c;
	struct peer peer;
	size_t at, n;
	void *buf;
	int i;

	conn_open(path, &c);
	session(c.peer, TCP_RXTLS_ENABLE);
	session(c.self, TCP_TXTLS_ENABLE);
	records_start(&peer, c.peer, 201, 0, TOTAL);
	for (at = 0, i = 0; at < TOTAL; at += n, i++) {
		n = MIN(sizes[i % nitems(sizes)], TOTAL - at);
		if (i % 3 == 2) {
			send_pattern(c.self, 201, at, n);
			continue;
		}
		buf = pattern_new(201, at, n);
		job_write(&cb, c.self, buf, n);
		JOB_ENDS(n, &cb);
	}
	ATF_REQUIRE_EQ(TOTAL, peer_join(&peer));
	conn_close(&c);
}

/* A session that begins on a connection whose buffers are in use. */
static void
writes_from_then_on(enum path path)
{
	struct aiocb cb;
	struct conn c;
	struct peer peer;
	void *buf;

	conn_open(path, &c);
	buf = pattern_new(202, 0, TOTAL);
	job_write(&cb, c.self, buf, 65536);
	recv_pattern(c.peer, 202, 0, 65536);
	JOB_ENDS(65536, &cb);
	session(c.peer, TCP_RXTLS_ENABLE);
	session(c.self, TCP_TXTLS_ENABLE);
	records_start(&peer, c.peer, 202, 0, TOTAL);
	job_write(&cb, c.self, buf, TOTAL);
	JOB_ENDS(TOTAL, &cb);
	ATF_REQUIRE_EQ(TOTAL, peer_join(&peer));
	conn_close(&c);
}

static void
read_all(int fd, u_int seed, size_t at)
{
	struct aiocb cb;
	ssize_t n;
	void *buf;

	buf = memory(50000);
	for (; at < TOTAL; at += n) {
		job_read(&cb, fd, buf, 50000);
		n = job_end(&cb);
		ATF_REQUIRE_MSG(n > 0, "read at %zu: %zd (%s)", at, n,
		    n < 0 ? strerror(errno) : "end of file");
		pattern_check(buf, seed, at, n);
	}
}

static void
reads(enum path path)
{
	struct conn c;
	struct peer peer;

	conn_open(path, &c);
	session(c.self, TCP_RXTLS_ENABLE);
	session(c.peer, TCP_TXTLS_ENABLE);
	peer_write(&peer, c.peer, 203, 0, TOTAL, 0);
	read_all(c.self, 203, 0);
	ATF_REQUIRE_EQ(TOTAL, peer_join(&peer));
	conn_close(&c);
}

/* Buffers are posted when the session begins: no ciphertext stays in them. */
static void
reads_posted_before(enum path path)
{
	struct aiocb cb, posted[2];
	struct conn c;
	struct peer peer;
	void *buf, *bufs[2];
	size_t at = 0;
	ssize_t n;
	int i;

	conn_open(path, &c);
	/* Placement is on. */
	buf = memory(65536);
	for (i = 0; i < 2; i++) {
		job_read(&cb, c.self, buf, 65536);
		pause_ms(20);
		send_pattern(c.peer, 204, i * 1000, 1000);
		JOB_ENDS(1000, &cb);
		pattern_check(buf, 204, i * 1000, 1000);
	}
	for (i = 0; i < 2; i++) {
		bufs[i] = memory(65536);
		job_read(&posted[i], c.self, bufs[i], 65536);
	}
	pause_ms(50);
	session(c.self, TCP_RXTLS_ENABLE);
	session(c.peer, TCP_TXTLS_ENABLE);
	peer_write(&peer, c.peer, 205, 0, TOTAL, 0);
	/* By the kernel's own path they are served; by ours they are not. */
	for (i = 0; i < 2; i++) {
		n = job_end(&posted[i]);
		if (n < 0) {
			ATF_REQUIRE_EQ(EOPNOTSUPP, errno);
			continue;
		}
		pattern_check(bufs[i], 205, at, n);
		at += n;
	}
	read_all(c.self, 205, at);
	ATF_REQUIRE_EQ(TOTAL, peer_join(&peer));
	conn_close(&c);
}

#define	TLS_CASE(name, descr)	BOTH_WAYS(name, descr)
#else
static void
without(enum path path __unused)
{

	atf_tc_skip("this release has no TLS in the kernel");
}

#define	TLS_CASE(name, descr)						\
static void name(enum path path) { without(path); }			\
BOTH_WAYS(name, descr)
#endif

TLS_CASE(writes, "aio_write on a socket that ciphers")
TLS_CASE(writes_from_then_on, "a session begins between two aio_writes")
TLS_CASE(reads, "aio_read on a socket that deciphers")
TLS_CASE(reads_posted_before, "a session begins while aio_reads wait")

ATF_TP_ADD_TCS(tp)
{

	ADD_BOTH(tp, writes);
	ADD_BOTH(tp, writes_from_then_on);
	ADD_BOTH(tp, reads);
	ADD_BOTH(tp, reads_posted_before);
	return (atf_no_error());
}
