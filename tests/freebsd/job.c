/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Copyright (c) 2026, The toehold authors
 */

#include <sys/param.h>
#include <sys/event.h>

#include <aio.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "toetest.h"

/* Seconds that a request which has to end may take. */
#define	PATIENCE	20

#define	SIGJOB	SIGUSR1
#define	SIGLIST	SIGUSR2

static const struct timespec patience = { .tv_sec = PATIENCE };

/* Describe a request; opcode is LIO_READ or LIO_WRITE. */
void
job_fill(struct aiocb *cb, int opcode, int fd, void *buf, size_t len)
{

	memset(cb, 0, sizeof(*cb));
	cb->aio_fildes = fd;
	cb->aio_buf = buf;
	cb->aio_nbytes = len;
	cb->aio_lio_opcode = opcode;
	cb->aio_sigevent.sigev_notify = SIGEV_NONE;
}

static void
submit(struct aiocb *cb)
{
	int error;

	if (cb->aio_lio_opcode == LIO_READ)
		error = aio_read(cb);
	else
		error = aio_write(cb);
	if (error != 0)
		atf_tc_fail("%s: %s", cb->aio_lio_opcode == LIO_READ ?
		    "aio_read" : "aio_write", strerror(errno));
}

void
job_read(struct aiocb *cb, int fd, void *buf, size_t len)
{

	job_fill(cb, LIO_READ, fd, buf, len);
	submit(cb);
}

void
job_write(struct aiocb *cb, int fd, void *buf, size_t len)
{

	job_fill(cb, LIO_WRITE, fd, buf, len);
	submit(cb);
}

bool
job_busy(const struct aiocb *cb)
{

	return (aio_error(cb) == EINPROGRESS);
}

/*
 * Wait for a request and take its result, as aio_return(2) gives it.  Any
 * thread may wait for its own; other requests may end meanwhile.
 */
ssize_t
job_end(struct aiocb *cb)
{
	const struct aiocb *list[1] = { cb };

	while (aio_suspend(list, 1, &patience) != 0) {
		if (errno == EAGAIN)
			atf_tc_fail("a request did not end in %d seconds",
			    PATIENCE);
		if (errno != EINTR)
			atf_tc_fail("aio_suspend: %s", strerror(errno));
	}
	return (aio_return(cb));
}

/*
 * Signals of completion wait until they are asked for.  To be called before
 * there is another thread, which would take them.
 */
void
signals_block(void)
{
	sigset_t set;
	int error;

	sigemptyset(&set);
	sigaddset(&set, SIGJOB);
	sigaddset(&set, SIGLIST);
	error = pthread_sigmask(SIG_BLOCK, &set, NULL);
	ATF_REQUIRE_MSG(error == 0, "pthread_sigmask: %s", strerror(error));
}

static void
arm_none(struct aiocb *cb __unused)
{

}

/* The request has ended: take its result. */
static ssize_t
result(struct aiocb *cb)
{
	int error;

	error = aio_error(cb);
	ATF_REQUIRE_MSG(error != EINPROGRESS, "said to have ended, but has "
	    "not");
	return (aio_return(cb));
}

static ssize_t
wait_poll(struct aiocb *cb)
{
	int ms;

	for (ms = 0; job_busy(cb); ms++) {
		if (ms == PATIENCE * 1000)
			atf_tc_fail("still in progress after %d seconds",
			    PATIENCE);
		pause_ms(1);
	}
	return (result(cb));
}

const struct style style_poll = { "poll", arm_none, submit, wait_poll };
const struct style style_suspend = { "suspend", arm_none, submit, job_end };

static void
arm_signal(struct aiocb *cb)
{

	cb->aio_sigevent.sigev_notify = SIGEV_SIGNAL;
	cb->aio_sigevent.sigev_signo = SIGJOB;
	cb->aio_sigevent.sigev_value.sival_ptr = cb;
}

static void
await_signal(int sig, void *value)
{
	siginfo_t info;
	sigset_t set;
	int got;

	sigemptyset(&set);
	sigaddset(&set, sig);
	do
		got = sigtimedwait(&set, &info, &patience);
	while (got == -1 && errno == EINTR);
	ATF_REQUIRE_MSG(got == sig, "sigtimedwait: %s", strerror(errno));
	ATF_REQUIRE_EQ_MSG(SI_ASYNCIO, info.si_code, "si_code %#x",
	    info.si_code);
	ATF_REQUIRE_MSG(info.si_value.sival_ptr == value,
	    "the signal is about another request");
}

static ssize_t
wait_signal(struct aiocb *cb)
{

	await_signal(SIGJOB, cb);
	return (result(cb));
}

const struct style style_signal = {
	"signal", arm_signal, submit, wait_signal
};

/* Only one request at a time has this style. */
static int kq = -1;

static void
arm_kevent(struct aiocb *cb)
{

	if (kq == -1)
		kq = kqueue();
	ATF_REQUIRE_MSG(kq != -1, "kqueue: %s", strerror(errno));
	cb->aio_sigevent.sigev_notify = SIGEV_KEVENT;
	cb->aio_sigevent.sigev_notify_kqueue = kq;
	cb->aio_sigevent.sigev_value.sival_ptr = cb;
}

static ssize_t
wait_kevent(struct aiocb *cb)
{
	struct kevent ev;
	int n;

	do
		n = kevent(kq, NULL, 0, &ev, 1, &patience);
	while (n == -1 && errno == EINTR);
	ATF_REQUIRE_MSG(n == 1, "kevent: %d (%s)", n,
	    n < 0 ? strerror(errno) : "nothing came");
	ATF_REQUIRE_EQ_MSG(EVFILT_AIO, ev.filter, "filter %d", ev.filter);
	ATF_REQUIRE_MSG(ev.ident == (uintptr_t)cb && ev.udata == cb,
	    "the event is about another request");
	return (result(cb));
}

const struct style style_kevent = {
	"kevent", arm_kevent, submit, wait_kevent
};

static void
submit_lio_wait(struct aiocb *cb)
{
	struct aiocb *list[2] = { cb, NULL };

	ATF_REQUIRE_MSG(lio_listio(LIO_WAIT, list, nitems(list), NULL) == 0,
	    "lio_listio: %s", strerror(errno));
}

const struct style style_lio_wait = {
	"lio_wait", arm_none, submit_lio_wait, result
};

static void
submit_lio_nowait(struct aiocb *cb)
{
	struct aiocb *list[2] = { NULL, cb };
	struct sigevent ev;

	memset(&ev, 0, sizeof(ev));
	ev.sigev_notify = SIGEV_SIGNAL;
	ev.sigev_signo = SIGLIST;
	ev.sigev_value.sival_ptr = cb;
	ATF_REQUIRE_MSG(lio_listio(LIO_NOWAIT, list, nitems(list), &ev) == 0,
	    "lio_listio: %s", strerror(errno));
}

static ssize_t
wait_lio_nowait(struct aiocb *cb)
{

	await_signal(SIGLIST, cb);
	return (result(cb));
}

const struct style style_lio_nowait = {
	"lio_nowait", arm_none, submit_lio_nowait, wait_lio_nowait
};

static ssize_t
wait_waitcomplete(struct aiocb *cb)
{
	struct timespec ts = patience;
	struct aiocb *done = NULL;
	ssize_t n;

	do
		n = aio_waitcomplete(&done, &ts);
	while (n == -1 && done == NULL && errno == EINTR);
	ATF_REQUIRE_MSG(done == cb, "aio_waitcomplete: %s",
	    done == NULL ? strerror(errno) : "another request");
	return (n);
}

const struct style style_waitcomplete = {
	"waitcomplete", arm_none, submit, wait_waitcomplete
};
