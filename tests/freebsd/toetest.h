/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Copyright (c) 2026, The toehold authors
 */

/*
 * What the test programs share.  Nothing here returns an error: what goes
 * wrong fails the test case, with the reason.
 */

#ifndef _TOETEST_H_
#define	_TOETEST_H_

#include <sys/types.h>

#include <aio.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <atf-c.h>

/* How the two ends of a connection reach each other. */
enum path {
	TOE,		/* cxl0 to cxl1, offloaded at both ends */
	LOOPBACK	/* lo0, where toehold has no part: the control */
};

/* A connection; this process has both ends of it. */
struct conn {
	int	self;	/* the end under test */
	int	peer;	/* the other one */
};

/*
 * net.c: the ports, the jail of the second one, connections.
 */
void	path_head(atf_tc_t *, enum path, const char *);
void	path_setup(enum path);
void	path_cleanup(void);
void	ports_up(void);
void	listener_open(enum path);
void	listener_rcvbuf(int);
void	conn_open(enum path, struct conn *);
void	conn_close(struct conn *);
void	conn_reset(int);
void	nonblocking(int);
void	all_quiet(enum path);

/*
 * state.c: sysctl variables and modules, and how they were before.
 */
#define	TOE_NODE	"dev.t5nex.0.toe."
#define	STATS_NODE	TOE_NODE "stats."
#define	SIM_NODE	"dev.t5nex.0.sim."

bool	knob_present(const char *);
int64_t	knob_get(const char *);
int	knob_try(const char *, int64_t);
void	knob_set(const char *, int64_t);
void	knob_change(const char *, int64_t);
int64_t	stat_get(const char *);
bool	module_loaded(const char *);
int	module_unload(const char *);
void	module_load(const char *);
void	module_note(const char *, char *, size_t);
void	state_note(const char *, const char *);
void	state_undo(void);
int	command_try(const char *, ...) __printflike(1, 2);
void	command(const char *, ...) __printflike(1, 2);

/*
 * job.c: requests and the ways to learn that they have ended.
 */
struct style {
	const char *name;
	/* Fill in aio_sigevent. */
	void	(*arm)(struct aiocb *);
	/* Queue the request that aio_lio_opcode names. */
	void	(*submit)(struct aiocb *);
	/* Wait for its end; the result is aio_return(2)'s. */
	ssize_t	(*wait)(struct aiocb *);
};

extern const struct style style_poll;
extern const struct style style_signal;
extern const struct style style_suspend;
extern const struct style style_kevent;
extern const struct style style_lio_wait;
extern const struct style style_lio_nowait;
extern const struct style style_waitcomplete;

void	job_fill(struct aiocb *, int, int, void *, size_t);
void	job_read(struct aiocb *, int, void *, size_t);
void	job_write(struct aiocb *, int, void *, size_t);
bool	job_busy(const struct aiocb *);
ssize_t	job_end(struct aiocb *);
void	signals_block(void);

#define	JOB_ENDS(n, cb) do {						\
	ssize_t _n = job_end(cb);					\
	ATF_REQUIRE_MSG(_n == (ssize_t)(n), "%s: %zd (%s), want %zd",	\
	    #cb, _n, _n < 0 ? strerror(errno) : "no error",		\
	    (ssize_t)(n));						\
} while (0)

#define	JOB_FAILS(error, cb) do {					\
	ssize_t _n = job_end(cb);					\
	ATF_REQUIRE_MSG(_n == -1 && errno == (error),			\
	    "%s: %zd (%s), want %s", #cb, _n,				\
	    _n < 0 ? strerror(errno) : "no error", strerror(error));	\
} while (0)

/*
 * stream.c: a stream whose every byte tells where it belongs, and plain calls
 * that move it, in this thread or in another.
 */
struct peer {
	pthread_t thread;
	size_t	(*run)(struct peer *);
	int	fd;
	u_int	seed;
	size_t	off;
	size_t	len;
	size_t	moved;
	int	delay;		/* milliseconds before it begins */
	bool	done;
};

void	*memory(size_t);
void	*pattern_new(u_int, size_t, size_t);
void	pattern_fill(void *, u_int, size_t, size_t);
void	pattern_check(const void *, u_int, size_t, size_t);
void	send_pattern(int, u_int, size_t, size_t);
void	send_mark(int);
void	recv_mark(int);
void	recv_pattern(int, u_int, size_t, size_t);
size_t	drain(int, u_int, size_t);
size_t	drain_any(int, u_int, size_t);
void	peer_send(struct peer *, int, u_int, size_t, size_t, int);
void	peer_write(struct peer *, int, u_int, size_t, size_t, int);
void	peer_drain(struct peer *, int, u_int, size_t, int);
size_t	peer_join(struct peer *);
void	pause_ms(int);
int	child_wait(pid_t);

/*
 * A test case for one path, and for both.
 */
#define	SCENARIO(tc, path, run, descr)					\
ATF_TC_WITH_CLEANUP(tc);						\
ATF_TC_HEAD(tc, t)							\
{									\
									\
	path_head(t, path, descr);					\
}									\
ATF_TC_BODY(tc, t __unused)						\
{									\
									\
	path_setup(path);						\
	run(path);							\
	all_quiet(path);						\
}									\
ATF_TC_CLEANUP(tc, t __unused)						\
{									\
									\
	path_cleanup();							\
}

#define	BOTH_WAYS(name, descr)						\
SCENARIO(toe_ ## name, TOE, name, descr)				\
SCENARIO(loopback_ ## name, LOOPBACK, name, descr)

#define	ADD_BOTH(tp, name) do {						\
	ATF_TP_ADD_TC(tp, toe_ ## name);				\
	ATF_TP_ADD_TC(tp, loopback_ ## name);				\
} while (0)

#endif /* !_TOETEST_H_ */
