/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * aio: claiming requests, their fields, completion, and the worker.
 */
#include "internal.h"

#include <sys/aio.h>
#include <sys/file.h>
#include <sys/signalvar.h>

/* ---- Claiming ----------------------------------------------------------- */

int
th_aio_queue(struct socket *so, struct kaiocb *job)
{
	int error;

	switch (job->uaiocb.aio_lio_opcode) {
	case LIO_READ:
		error = toehold_aio_queue(so, job, TH_AIO_READ);
		break;
	case LIO_WRITE:
		error = toehold_aio_queue(so, job, TH_AIO_WRITE);
		break;
	default:		/* vectored: the generic path */
		error = EOPNOTSUPP;
		break;
	}
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

size_t
th_job_len(struct kaiocb *job)
{

	return (job->uaiocb.aio_nbytes);
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

/* Not looked at until aio_complete() sets it. */
uintptr_t *
th_job_word(struct kaiocb *job)
{

	CTASSERT(sizeof(job->uaiocb._aiocb_private.status) ==
	    sizeof(uintptr_t));
	return ((uintptr_t *)&job->uaiocb._aiocb_private.status);
}

void **
th_job_toep(struct kaiocb *job)
{

	return (&job->backend1);
}

uint32_t *
th_job_refs(struct kaiocb *job)
{

	CTASSERT(sizeof(job->backend4) == sizeof(uint32_t));
	return ((uint32_t *)&job->backend4);
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

void
th_aiotx_mfree(struct mbuf *m)
{

	toehold_aiotx_rele(m->m_ext.ext_arg1);
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
