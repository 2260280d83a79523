/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Copyright (c) 2026, The toehold authors
 */

/*
 * Connections with both ends in this process.
 *
 * The ports of the simulated adapter are joined by a cable, but two ports of
 * one network stack would talk over lo0.  So cxl1 goes into a jail with a
 * network stack of its own, where a child makes the listening socket and hands
 * it out: what is accepted from it belongs to the stack of the jail, whoever
 * accepts it.
 */

#include <sys/param.h>
#include <sys/jail.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "toetest.h"

/* Addresses for documentation: nobody has them. */
#define	SELF_IP		"192.0.2.1"
#define	PEER_IP		"192.0.2.2"

/* Seconds until a plain call that makes no progress fails. */
#define	PATIENCE	30

/* Seconds until nothing may be left of a connection. */
#define	QUIET		60

#define	MSL		"net.inet.tcp.msl"

static char jail_name[32];
static int listener = -1;

void
path_head(atf_tc_t *tc, enum path path, const char *descr)
{

	atf_tc_set_md_var(tc, "descr", "%s", descr);
	atf_tc_set_md_var(tc, "timeout", "180");
	if (path == LOOPBACK)
		return;
	atf_tc_set_md_var(tc, "require.user", "root");
	atf_tc_set_md_var(tc, "require.progs", "/sbin/ifconfig "
	    "/usr/sbin/jail /usr/sbin/jexec");
#if __FreeBSD_version >= 1500000
	/* kyua(1) of older releases rejects what it does not know. */
	atf_tc_set_md_var(tc, "require.kmods", "t5sim toehold");
#endif
}

/* Skip what cannot run here. */
static void
require_adapter(void)
{
	static const char *const modules[] = { "t5sim", "toehold" };
	size_t i;

	for (i = 0; i < nitems(modules); i++) {
		if (!module_loaded(modules[i]))
			atf_tc_skip("module %s is not loaded: "
			    "kldload t5sim toehold", modules[i]);
	}
	if (!knob_present("kern.features.vimage"))
		atf_tc_skip("the kernel has no VIMAGE, so cxl1 cannot have "
		    "a network stack of its own");
	if (command_try("ifconfig cxl0 >/dev/null && "
	    "ifconfig cxl1 >/dev/null") != 0)
		atf_tc_skip("cxl0 or cxl1 is not here: is it in a jail?");
}

/* Addresses, and TCP offload at both ends. */
void
ports_up(void)
{

	command("ifconfig cxl0 inet " SELF_IP "/24 toe up");
	command("jexec %s ifconfig cxl1 inet " PEER_IP "/24 toe up",
	    jail_name);
}

static void
jail_up(void)
{
	char undo[128];

	snprintf(jail_name, sizeof(jail_name), "toehold%d", (int)getpid());
	snprintf(undo, sizeof(undo), "jail -r %s 2>/dev/null", jail_name);
	state_note("command", undo);
	/* Before that, for a jail may linger after its removal. */
	snprintf(undo, sizeof(undo), "ifconfig cxl1 -vnet %s 2>/dev/null",
	    jail_name);
	state_note("command", undo);
	snprintf(undo, sizeof(undo),
	    "jexec %s ifconfig cxl1 -toe 2>/dev/null", jail_name);
	state_note("command", undo);
	command("jail -c name=%s path=/ vnet persist vnet.interface=cxl1",
	    jail_name);
}

void
path_setup(enum path path)
{

	(void)signal(SIGPIPE, SIG_IGN);
	signals_block();
	if (path == TOE) {
		require_adapter();
		/* A jail does not end before the connections of its stack. */
		knob_change(MSL, 100);
		state_note("command", "ifconfig cxl0 -toe inet " SELF_IP
		    " delete 2>/dev/null");
		jail_up();
		ports_up();
		knob_change(TOE_NODE "ddp", 1);
		knob_change(TOE_NODE "tx_zcopy", 1);
	}
	listener_open(path);
}

void
path_cleanup(void)
{

	state_undo();
}

static int
listener_new(const char *ip)
{
	struct sockaddr_in sin;
	int fd;

	memset(&sin, 0, sizeof(sin));
	sin.sin_len = sizeof(sin);
	sin.sin_family = AF_INET;
	sin.sin_addr.s_addr = inet_addr(ip);
	fd = socket(PF_INET, SOCK_STREAM, 0);
	if (fd == -1 || bind(fd, (struct sockaddr *)&sin, sizeof(sin)) != 0 ||
	    listen(fd, 128) != 0)
		return (-1);
	return (fd);
}

static int
jail_id(void)
{
	struct iovec iov[2];

	iov[0].iov_base = __DECONST(void *, "name");
	iov[0].iov_len = sizeof("name");
	iov[1].iov_base = jail_name;
	iov[1].iov_len = strlen(jail_name) + 1;
	return (jail_get(iov, nitems(iov), 0));
}

/* A message with room for one descriptor. */
struct fd_msg {
	struct msghdr	hdr;
	struct iovec	iov;
	char		byte;
	union {
		struct cmsghdr	cmsg;
		char		room[CMSG_SPACE(sizeof(int))];
	} u;
};

static void
fd_msg_init(struct fd_msg *m)
{

	memset(m, 0, sizeof(*m));
	m->iov.iov_base = &m->byte;
	m->iov.iov_len = 1;
	m->hdr.msg_iov = &m->iov;
	m->hdr.msg_iovlen = 1;
	m->hdr.msg_control = &m->u;
	m->hdr.msg_controllen = sizeof(m->u.room);
}

/* In the child: a listening socket of the jail's stack goes to the parent. */
static int
listener_send(int to)
{
	struct cmsghdr *c;
	struct fd_msg m;
	int fd;

	if (jail_attach(jail_id()) != 0)
		return (1);
	fd = listener_new(PEER_IP);
	if (fd == -1)
		return (2);
	fd_msg_init(&m);
	c = CMSG_FIRSTHDR(&m.hdr);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(fd));
	memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	return (sendmsg(to, &m.hdr, 0) == 1 ? 0 : 3);
}

static int
listener_receive(int from)
{
	struct cmsghdr *c;
	struct fd_msg m;
	int fd;

	fd_msg_init(&m);
	if (recvmsg(from, &m.hdr, 0) != 1)
		return (-1);
	c = CMSG_FIRSTHDR(&m.hdr);
	if (c == NULL || c->cmsg_type != SCM_RIGHTS)
		return (-1);
	memcpy(&fd, CMSG_DATA(c), sizeof(fd));
	return (fd);
}

/* The peer's listening socket, made anew. */
void
listener_open(enum path path)
{
	int pair[2], status;
	pid_t pid;

	if (listener != -1)
		(void)close(listener);
	if (path == LOOPBACK) {
		listener = listener_new("127.0.0.1");
		ATF_REQUIRE_MSG(listener != -1, "no listener on lo0: %s",
		    strerror(errno));
		return;
	}
	ATF_REQUIRE(socketpair(PF_LOCAL, SOCK_STREAM, 0, pair) == 0);
	pid = fork();
	ATF_REQUIRE_MSG(pid != -1, "fork: %s", strerror(errno));
	if (pid == 0)
		_exit(listener_send(pair[1]));
	(void)close(pair[1]);
	listener = listener_receive(pair[0]);
	(void)close(pair[0]);
	status = child_wait(pid);
	ATF_REQUIRE_MSG(listener != -1 && status == 0,
	    "no listener in the jail: %s", status == 1 ? "jail_attach" :
	    status == 2 ? "listen" : "the descriptor was lost");
}

/* For the connections to come. */
void
listener_rcvbuf(int size)
{

	ATF_REQUIRE(setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &size,
	    sizeof(size)) == 0);
}

static void
set_patience(int fd)
{
	const struct timeval tv = { .tv_sec = PATIENCE };

	ATF_REQUIRE(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv,
	    sizeof(tv)) == 0);
	ATF_REQUIRE(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv,
	    sizeof(tv)) == 0);
}

static bool
offloaded(int fd)
{
	struct tcp_info ti;
	socklen_t len = sizeof(ti);

	ATF_REQUIRE_MSG(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &ti, &len) == 0,
	    "TCP_INFO: %s", strerror(errno));
	return ((ti.tcpi_options & TCPI_OPT_TOE) != 0);
}

/* A new connection, which takes the path it should. */
void
conn_open(enum path path, struct conn *c)
{
	struct sockaddr_in sin;
	socklen_t len = sizeof(sin);

	ATF_REQUIRE(getsockname(listener, (struct sockaddr *)&sin,
	    &len) == 0);
	c->self = socket(PF_INET, SOCK_STREAM, 0);
	ATF_REQUIRE_MSG(c->self != -1, "socket: %s", strerror(errno));
	ATF_REQUIRE_MSG(connect(c->self, (struct sockaddr *)&sin, len) == 0,
	    "connect: %s", strerror(errno));
	c->peer = accept(listener, NULL, NULL);
	ATF_REQUIRE_MSG(c->peer != -1, "accept: %s", strerror(errno));
	set_patience(c->self);
	set_patience(c->peer);
	ATF_REQUIRE_EQ_MSG(path == TOE, offloaded(c->self),
	    "the end that connected is%s offloaded",
	    path == TOE ? " not" : "");
	ATF_REQUIRE_EQ_MSG(path == TOE, offloaded(c->peer),
	    "the end that accepted is%s offloaded", path == TOE ? " not" : "");
}

void
conn_close(struct conn *c)
{

	if (c->self != -1)
		(void)close(c->self);
	if (c->peer != -1)
		(void)close(c->peer);
	c->self = c->peer = -1;
}

/* Close with a reset. */
void
conn_reset(int fd)
{
	const struct linger l = { .l_onoff = 1, .l_linger = 0 };

	ATF_REQUIRE(setsockopt(fd, SOL_SOCKET, SO_LINGER, &l,
	    sizeof(l)) == 0);
	ATF_REQUIRE(close(fd) == 0);
}

void
nonblocking(int fd)
{
	int flags;

	flags = fcntl(fd, F_GETFL);
	ATF_REQUIRE(flags != -1);
	ATF_REQUIRE(fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0);
}

/*
 * At the end of a test case, with all connections closed: toehold lets go of
 * them and of every page.
 */
void
all_quiet(enum path path)
{
	int ms;

	if (path == LOOPBACK)
		return;
	for (ms = 0; ms < QUIET * 1000; ms += 50) {
		if (stat_get("toepcbs") == 0 && stat_get("wired_pages") == 0)
			return;
		pause_ms(50);
	}
	atf_tc_fail("after %d seconds %jd connections and %jd wired pages "
	    "are left", QUIET, (intmax_t)stat_get("toepcbs"),
	    (intmax_t)stat_get("wired_pages"));
}
