/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * What is wired for user buffers, in all and by process: how much may be, who is asked to let
 * go of some, and what happens when a process ends.
 */
#include "internal.h"

#include <sys/aio.h>
#include <sys/resourcevar.h>
#include <vm/vm.h>
#include <vm/pmap.h>
#include <vm/vm_map.h>

/* ---- Budgets ----------------------------------------------------------------- */

/* Pages of user buffers wired through all adapters, which have memory in common. */
static volatile u_long th_wired;

/* Adapters that are in use.  th_owner_lock. */
static LIST_HEAD(, th_tom) th_toms = LIST_HEAD_INITIALIZER(th_toms);

/*
 * What is charged to a process, or to those that share its memory.  A job or
 * the pages of a set keep the vmspace, and so its address, from being reused.
 */
struct th_owner {
	LIST_ENTRY(th_owner) link;
	struct vmspace *vm;
	u_long pages;
};

#define TH_OWNERS	64		/* hash buckets */
static LIST_HEAD(, th_owner) th_owners[TH_OWNERS];
static struct mtx th_owner_lock;
MTX_SYSINIT(th_owner, &th_owner_lock, "toehold owners", MTX_DEF);

static u_int
th_owner_hash(struct vmspace *vm)
{

	return (((uintptr_t)vm >> 8) % TH_OWNERS);
}

static struct th_owner *
th_owner_find(struct vmspace *vm)
{
	struct th_owner *o;

	mtx_assert(&th_owner_lock, MA_OWNED);
	LIST_FOREACH(o, &th_owners[th_owner_hash(vm)], link)
		if (o->vm == vm)
			break;
	return (o);
}

static struct th_owner *
th_owner_new(struct vmspace *vm)
{
	struct th_owner *o;

	mtx_assert(&th_owner_lock, MA_OWNED);
	o = malloc(sizeof(*o), M_TOEHOLD, M_NOWAIT | M_ZERO);
	if (o != NULL) {
		o->vm = vm;
		LIST_INSERT_HEAD(&th_owners[th_owner_hash(vm)], o, link);
	}
	return (o);
}

/* Most pages for the job's process.  PROC_LOCK is taken after INP. */
static u_long
th_owner_limit(struct th_tom *tom, struct kaiocb *job)
{
	struct proc *p;
	u_long limit, pages, wired;
	rlim_t lim;

	limit = tom->max_wired_proc;
	if (limit == 0)
		limit = tom->max_wired / 2;
	if (tom->memlock == 0)
		return (limit);
	p = job->userproc;
	PROC_LOCK(p);
	lim = lim_cur_proc(p, RLIMIT_MEMLOCK);
	PROC_UNLOCK(p);
	if (lim == RLIM_INFINITY)
		return (limit);
	/* As mlock(2) counts, which knows nothing of our pages. */
	wired = pmap_wired_count(vmspace_pmap(p->p_vmspace));
	pages = atop((u_long)lim);
	return (pages > wired ? MIN(limit, pages - wired) : 0);
}

void
th_count_wired(struct th_tom *tom, int64_t delta)
{

	th_gauge(tom, TH_GAUGE_WIRED, delta);
	atomic_add_long(&th_wired, (u_long)delta);
}

/*
 * Whoever keeps idle page sets shall let go of them: the process with this
 * address space, or, with NULL, all.  Its connections may be any adapter's.
 */
static void
th_press(struct vmspace *vm)
{
	struct th_tom *tom;

	mtx_assert(&th_owner_lock, MA_OWNED);
	LIST_FOREACH(tom, &th_toms, all)
		toehold_pressure(tom->rs, (uint64_t)(uintptr_t)vm);
}

bool
th_pages_budget(struct th_tom *tom, struct kaiocb *job, uint32_t n)
{
	struct th_owner *o;
	struct vmspace *vm;
	u_long limit, own;
	bool ok;

	vm = job->userproc->p_vmspace;
	limit = tom->max_wired;
	own = th_owner_limit(tom, job);
	/* The last eighth is for small pieces, so that nobody starves. */
	if (n > atop(64 * 1024) + 1) {
		limit -= limit / 8;
		own -= own / 8;
	}
	mtx_lock(&th_owner_lock);
	o = th_owner_find(vm);
	ok = false;
	if ((o == NULL ? 0 : o->pages) + n > own)
		th_press(vm);
	else if (th_wired + n > limit || (o == NULL &&
	    (o = th_owner_new(vm)) == NULL))
		th_press(NULL);
	else
		ok = true;
	if (ok) {
		o->pages += n;
		th_count_wired(tom, n);
	}
	mtx_unlock(&th_owner_lock);
	return (ok);
}

void
th_uncharge(struct th_tom *tom, struct vmspace *vm, u_int n)
{
	struct th_owner *o;

	mtx_lock(&th_owner_lock);
	th_count_wired(tom, -(int64_t)n);
	o = th_owner_find(vm);
	KASSERT(o != NULL && o->pages >= n, ("%s: %u pages", __func__, n));
	o->pages -= n;
	if (o->pages == 0)
		LIST_REMOVE(o, link);
	else
		o = NULL;
	mtx_unlock(&th_owner_lock);
	free(o, M_TOEHOLD);
}

/* ---- Processes that end --------------------------------------------------- */

/*
 * The jobs of this process are over: aio's own handlers, of any priority, have
 * run.  A set of pages keeps the address space, and all its memory, from being
 * freed.  The child of a vfork(2) has only borrowed it.
 */
static void
th_space_ends(struct th_tom *tom, struct proc *p)
{
	struct vmspace *vm;
	bool holds;

	if ((p->p_flag & P_PPWAIT) != 0)
		return;
	vm = p->p_vmspace;
	mtx_lock(&th_owner_lock);
	holds = th_owner_find(vm) != NULL;
	mtx_unlock(&th_owner_lock);
	if (holds)
		toehold_forget(tom->rs, (uint64_t)(uintptr_t)vm);
}

static void
th_proc_exit(void *arg, struct proc *p)
{

	th_space_ends(arg, p);
}

static void
th_proc_exec(void *arg, struct proc *p, struct image_params *imgp)
{

	th_space_ends(arg, p);
}

void
th_vm_watch(struct th_tom *tom)
{

	tom->exits = EVENTHANDLER_REGISTER(process_exit, th_proc_exit, tom,
	    EVENTHANDLER_PRI_LAST);
	tom->execs = EVENTHANDLER_REGISTER(process_exec, th_proc_exec, tom,
	    EVENTHANDLER_PRI_LAST);
	mtx_lock(&th_owner_lock);
	LIST_INSERT_HEAD(&th_toms, tom, all);
	mtx_unlock(&th_owner_lock);
}

void
th_vm_unwatch(struct th_tom *tom)
{

	mtx_lock(&th_owner_lock);
	LIST_REMOVE(tom, all);
	mtx_unlock(&th_owner_lock);
	EVENTHANDLER_DEREGISTER(process_exit, tom->exits);
	EVENTHANDLER_DEREGISTER(process_exec, tom->execs);
}
