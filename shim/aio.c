/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * aio: claiming requests, their fields, completion, and the worker.
 */
#include "internal.h"

#include <sys/aio.h>
#include <sys/file.h>
#include <sys/signalvar.h>
#include <sys/uio.h>

/* Packaged headers have nothing of it, and ukern no policy. */
#if defined(MAC) && __has_include(<security/mac/mac_framework.h>)
#include <security/mac/mac_framework.h>
#define TH_MAC
#endif

/* ---- Claiming ----------------------------------------------------------- */

#ifdef LIO_VECTORED
#define TH_VECTORED	LIO_VECTORED
#else
#define TH_VECTORED	0
#endif
#define TH_LIO_MASK	(LIO_READ | LIO_WRITE | TH_VECTORED)

/*
 * A read that nobody claims and that no data can come for.  FreeBSD 12 would
 * queue it where shutdown(2) has left zeros; the answer is the same anywhere.
 */
static bool
th_aio_over(struct socket *so, struct kaiocb *job)
{
	struct sockbuf *sb;
	bool over;
	int error;

	sb = &so->so_rcv;
	error = 0;
	SOCKBUF_LOCK(sb);
	over = (sb->sb_state & SBS_CANTRCVMORE) != 0 && sbavail(sb) == 0;
	if (over)
		error = th_so_take_error(so);
	SOCKBUF_UNLOCK(sb);
	if (over)
		aio_complete(job, error == 0 ? 0 : -1, error);
	return (over);
}

/* What a policy forbids is left to the generic path, which asks and says so. */
static bool
th_aio_forbidden(struct socket *so, struct kaiocb *job, int op)
{
#ifdef TH_MAC
	struct ucred *cred;

	cred = job->fd_file->f_cred;
	return (((op & LIO_READ) != 0 ? mac_socket_check_receive(cred, so) :
	    mac_socket_check_send(cred, so)) != 0);
#else
	return (false);
#endif
}

int
th_aio_queue(struct socket *so, struct kaiocb *job)
{
	int error, op;

	op = job->uaiocb.aio_lio_opcode & TH_LIO_MASK;
	if (th_aio_forbidden(so, job, op))
		error = EOPNOTSUPP;
	else if ((op & LIO_READ) != 0)
		error = toehold_aio_queue(so, job, TH_AIO_READ);
	else if (op == LIO_WRITE)
		error = toehold_aio_queue(so, job, TH_AIO_WRITE);
#ifdef LIO_VECTORED
	else if (op == LIO_WRITEV) {
		/* The uio tells it no more when it is half used. */
		job->backend1 = (void *)(uintptr_t)job->uiop->uio_resid;
		error = toehold_aio_queue(so, job, TH_AIO_WRITEV);
	}
#endif
	else
		error = EOPNOTSUPP;
	if (error == EOPNOTSUPP && (op & LIO_READ) != 0 &&
	    th_aio_over(so, job))
		return (0);
	if (error == EOPNOTSUPP)
		error = TH_AIO_GENERIC(so, job);
	return (error);
}

/*
 * A cancelled job of ours.  The job keeps its file, and so the socket and the
 * inp, alive; whose it is says t_toe, under the lock.
 */
static void
th_aio_cancel(struct kaiocb *job)
{
	struct inpcb *inp;

	inp = th_job_inp(job);
	if (inp == NULL)
		return;
	CURVNET_SET(inp->inp_vnet);
	INP_WLOCK(inp);
	toehold_aio_cancel(th_inp_toep(inp), inp, job);
	INP_WUNLOCK(inp);
	CURVNET_RESTORE();
}

/* ---- A job's fields ------------------------------------------------------ */

uint64_t
th_job_addr(struct kaiocb *job)
{

	return ((uint64_t)(uintptr_t)job->uaiocb.aio_buf);
}

bool
th_job_vectored(struct kaiocb *job)
{

	return ((job->uaiocb.aio_lio_opcode & TH_VECTORED) != 0);
}

/* The uio of a vectored read is only looked at, so its resid is all of it. */
size_t
th_job_len(struct kaiocb *job)
{

#ifdef LIO_VECTORED
	if ((job->uaiocb.aio_lio_opcode & TH_LIO_MASK) == LIO_WRITEV)
		return ((size_t)(uintptr_t)job->backend1);
	if (th_job_vectored(job))
		return (job->uiop->uio_resid);
#endif
	return (job->uaiocb.aio_nbytes);
}

uint64_t
th_job_run(struct kaiocb *job, size_t off, size_t *len)
{
#ifdef LIO_VECTORED
	struct iovec *iov;
	int i;

	if (th_job_vectored(job)) {
		for (i = 0; i < job->uiop->uio_iovcnt; i++) {
			iov = &job->uiop->uio_iov[i];
			if (off < iov->iov_len) {
				*len = iov->iov_len - off;
				return ((uintptr_t)iov->iov_base + off);
			}
			off -= iov->iov_len;
		}
		*len = 0;
		return (0);
	}
#endif
	*len = off < th_job_len(job) ? th_job_len(job) - off : 0;
	return (th_job_addr(job) + off);
}

struct kaiocb **
th_job_next(struct kaiocb *job)
{

	return (&job->list.tqe_next);
}

int64_t *
th_job_done(struct kaiocb *job)
{

	CTASSERT(sizeof(job->backend3) == sizeof(int64_t));
	return ((int64_t *)&job->backend3);
}

/* Zero while nobody borrows the job: a backend's field, which the generic path leaves alone. */
uint32_t *
th_job_lent(struct kaiocb *job)
{

	CTASSERT(sizeof(job->backend4) == sizeof(uint32_t));
	return ((uint32_t *)&job->backend4);
}

/* Not looked at until aio_complete() sets it. */
uintptr_t *
th_job_word(struct kaiocb *job)
{

	CTASSERT(sizeof(job->uaiocb._aiocb_private.status) ==
	    sizeof(uintptr_t));
	return ((uintptr_t *)&job->uaiocb._aiocb_private.status);
}

struct inpcb *
th_job_inp(struct kaiocb *job)
{
	struct socket *so;

	so = job->fd_file->f_data;
	return (so == NULL ? NULL : sotoinpcb(so));
}

bool
th_job_arm_cancel(struct kaiocb *job)
{

	return (aio_set_cancel_function(job, th_aio_cancel));
}

void
th_job_complete(struct kaiocb *job, int64_t status, int error)
{

	if (error == ECANCELED)
		aio_cancel(job);
	else if (error != 0)
		aio_complete(job, -1, error);
	else
		aio_complete(job, status, 0);
}

void
th_job_sigpipe(struct kaiocb *job, struct socket *so)
{

	if ((TH_SO_OPTIONS(so) & SO_NOSIGPIPE) == 0) {
		PROC_LOCK(job->userproc);
		kern_psignal(job->userproc, SIGPIPE);
		PROC_UNLOCK(job->userproc);
	}
}

/* P_WEXIT and P_INEXEC are set before jobs are cancelled for their sake. */
bool
th_job_leaving(struct kaiocb *job)
{

	return ((job->userproc->p_flag & (P_WEXIT | P_INEXEC)) != 0);
}

/*
 * Move bytes out of the memory of the job's process.  Others, and workers,
 * reach it by its pages: nobody but a daemon of aio's may switch its address
 * space, and a program that submits a request can find one of another's here.
 */
static int
th_job_take(struct kaiocb *job, char *buf, size_t n, struct uio *from)
{
	struct iovec *iov;
	size_t len;
	int error;

	if (curproc == job->userproc)
		return (uiomove(buf, n, from));
	for (; n > 0; n -= len, buf += len) {
		iov = from->uio_iov;
		while (iov->iov_len == 0) {
			if (from->uio_iovcnt <= 1)
				return (EFAULT);
			iov = ++from->uio_iov;
			from->uio_iovcnt--;
		}
		len = MIN(n, iov->iov_len);
		error = th_proc_read(job->userproc, (uintptr_t)iov->iov_base,
		    buf, len);
		if (error != 0)
			return (error);
		iov->iov_base = (char *)iov->iov_base + len;
		iov->iov_len -= len;
		from->uio_resid -= len;
		from->uio_offset += len;
	}
	return (0);
}

int
th_job_copy(struct kaiocb *job, uint64_t off, uint32_t len,
    struct mbuf **out)
{
	struct iovec iov;
	struct mbuf *head, *m;
	struct uio uio, *from;
	uint32_t n;

	WITNESS_WARN(WARN_GIANTOK | WARN_SLEEPOK, NULL, "%s", __func__);
	iov.iov_base = (void *)(uintptr_t)(th_job_addr(job) + off);
	iov.iov_len = len;
	uio.uio_iov = &iov;
	uio.uio_iovcnt = 1;
	uio.uio_offset = 0;
	uio.uio_resid = len;
	uio.uio_segflg = UIO_USERSPACE;
	from = &uio;
#ifdef LIO_WRITEV
	if (job->uaiocb.aio_lio_opcode == LIO_WRITEV)
		from = job->uiop;
#endif
	from->uio_rw = UIO_WRITE;
	from->uio_td = curthread;
	head = m_getm2(NULL, len, M_WAITOK, MT_DATA, 0);
	for (m = head; m != NULL && len > 0; m = m->m_next) {
		n = MIN((uint32_t)M_TRAILINGSPACE(m), len);
		if (th_job_take(job, mtod(m, char *), n, from) != 0) {
			m_freem(head);
			return (EFAULT);
		}
		m->m_len = n;
		len -= n;
	}
	*out = head;
	return (0);
}

/* ---- The worker ------------------------------------------------------------ */

struct th_task {
	struct task task;
	void *toep;
	volatile u_int queued;
};

static void
th_task_run(void *arg, int pending)
{
	struct th_task *t;

	t = arg;
	/* From here on a new wish queues the task again. */
	atomic_store_rel_int(&t->queued, 0);
	toehold_worker(t->toep);
}

struct th_task *
th_task_alloc(void *toep)
{
	struct th_task *t;

	t = malloc(sizeof(*t), M_TOEHOLD, M_NOWAIT | M_ZERO);
	if (t != NULL) {
		t->toep = toep;
		TASK_INIT(&t->task, 0, th_task_run, t);
	}
	return (t);
}

void
th_task_free(struct th_task *t)
{

	free(t, M_TOEHOLD);
}

bool
th_task_enqueue(struct th_task *t)
{

	if (atomic_cmpset_int(&t->queued, 0, 1) == 0)
		return (false);
	soaio_enqueue(&t->task);
	return (true);
}
