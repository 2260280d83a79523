/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * User pages: fault in, wire, describe, copy to, put into mbufs, let go.
 */
#include "internal.h"

#include <sys/aio.h>
#include <sys/uio.h>
#include <sys/vmmeter.h>
#include <vm/vm.h>
#include <vm/vm_extern.h>
#include <vm/pmap.h>
#include <vm/vm_map.h>
#include <vm/vm_object.h>
#include <vm/vm_page.h>

/* A th_pages with what Rust need not see. */
struct th_pages_c {
	struct th_pages p;		/* first: Rust's view */
	SLIST_ENTRY(th_pages_c) link;
	struct vmspace *vm;
	vm_offset_t va;			/* of the first page */
	vm_page_t *ma;
	bool charged;
	void *owner;			/* whom mbufs tell when they go, */
	uint32_t slot;			/* and what they refer to there */
};

static inline struct th_pages_c *
th_pages_c(struct th_pages *p)
{

	return ((struct th_pages_c *)p);
}

/* ---- Letting go -------------------------------------------------------------- */

/* vmspace_free() may sleep; th_pages_rele() may not. */
static void
th_vm_task(void *arg, int pending)
{
	SLIST_HEAD(, th_pages_c) todo;
	struct th_pages_c *pg;
	struct th_tom *tom;

	tom = arg;
	SLIST_INIT(&todo);
	mtx_lock(&tom->vm_lock);
	while ((pg = SLIST_FIRST(&tom->vm_free)) != NULL) {
		SLIST_REMOVE_HEAD(&tom->vm_free, link);
		SLIST_INSERT_HEAD(&todo, pg, link);
	}
	mtx_unlock(&tom->vm_lock);
	while ((pg = SLIST_FIRST(&todo)) != NULL) {
		SLIST_REMOVE_HEAD(&todo, link);
		vmspace_free(pg->vm);
		free(pg, M_TOEHOLD);
	}
}

void
th_vm_init(struct th_tom *tom)
{

	mtx_init(&tom->vm_lock, "toehold vm", NULL, MTX_DEF);
	SLIST_INIT(&tom->vm_free);
	TASK_INIT(&tom->vm_task, 0, th_vm_task, tom);
}

void
th_vm_fini(struct th_tom *tom)
{

	taskqueue_drain(taskqueue_thread, &tom->vm_task);
	th_vm_task(tom, 0);
	mtx_destroy(&tom->vm_lock);
}

static void
th_unwire(vm_page_t *ma, u_int n)
{
#ifdef TH_QUICK_HOLD_WIRES

	vm_page_unhold_pages(ma, n);
#else
	u_int i;

	for (i = 0; i < n; i++) {
		vm_page_lock(ma[i]);
		/* Its object may have gone meanwhile: then nobody else frees it. */
		if (vm_page_unwire(ma[i], PQ_ACTIVE) && ma[i]->object == NULL)
			vm_page_free(ma[i]);
		vm_page_unlock(ma[i]);
	}
#endif
}

void
th_pages_rele(struct th_tom *tom, struct th_pages *p)
{
	struct th_pages_c *pg;

	pg = th_pages_c(p);
	th_unwire(pg->ma, p->count);
	if (pg->charged)
		th_uncharge(tom, pg->vm, p->count);
	else
		th_count_wired(tom, -(int64_t)p->count);
	mtx_lock(&tom->vm_lock);
	SLIST_INSERT_HEAD(&tom->vm_free, pg, link);
	mtx_unlock(&tom->vm_lock);
	taskqueue_enqueue(taskqueue_thread, &tom->vm_task);
}

/* ---- Holding ------------------------------------------------------------------- */

/*
 * Turn holds into wirings.  False, with nothing held or wired: a page was given up between
 * the fault and now, and its hold is all that keeps it.
 */
static bool
th_wire(vm_page_t *ma, u_int n)
{
#ifndef TH_QUICK_HOLD_WIRES
	u_int i;

	for (i = 0; i < n; i++) {
		vm_page_lock(ma[i]);
		if ((ma[i]->flags & PG_UNHOLDFREE) != 0) {
			vm_page_unlock(ma[i]);
			vm_page_unhold_pages(ma + i, n - i);
			th_unwire(ma, i);
			return (false);
		}
		vm_page_wire(ma[i]);
		vm_page_unhold(ma[i]);
		vm_page_unlock(ma[i]);
	}
#endif
	return (true);
}

/* The object may end while the page is wired, but its memory stays a vm_object. */
static bool
th_page_of_file(vm_page_t m)
{
	vm_object_t obj;

	obj = m->object;
	return (obj != NULL && (obj->type == OBJT_VNODE || TH_OBJ_TMPFS(obj)));
}

/*
 * Who changes the map holds its lock, and has moved the timestamp when it took
 * it.  Pages that were held while it is at work could be of before under a
 * timestamp of after; so wait until it is done.
 */
static void
th_map_settle(vm_map_t map)
{

	vm_map_lock_read(map);
	vm_map_unlock_read(map);
}

int
th_pages_hold(struct th_tom *tom, struct kaiocb *job, uint64_t addr,
    uint32_t len, bool write, bool charged, struct th_pages **out)
{
	struct th_pages_c *pg;
	struct vmspace *vm;
	vm_offset_t start, end;
	uint64_t *pa;
	u_int i, n;
	int held;

	WITNESS_WARN(WARN_GIANTOK | WARN_SLEEPOK, NULL, "%s", __func__);
	vm = job->userproc->p_vmspace;
	start = trunc_page((vm_offset_t)addr);
	end = round_page((vm_offset_t)addr + len);
	n = howmany((addr & PAGE_MASK) + len, PAGE_SIZE);
	if (end < start || len == 0) {
		if (charged)
			th_uncharge(tom, vm, n);
		return (EFAULT);
	}
	pg = malloc(sizeof(*pg) + n * (sizeof(*pa) + sizeof(vm_page_t)),
	    M_TOEHOLD, M_WAITOK);
	pa = (uint64_t *)(pg + 1);
	pg->ma = (vm_page_t *)(pa + n);
	th_map_settle(&vm->vm_map);
	do {
		held = vm_fault_quick_hold_pages(&vm->vm_map, start,
		    end - start, write ? VM_PROT_READ | VM_PROT_WRITE :
		    VM_PROT_READ, pg->ma, n);
		if (held < 0 || (u_int)held != n) {
			if (held > 0)
				vm_page_unhold_pages(pg->ma, held);
			if (charged)
				th_uncharge(tom, vm, n);
			free(pg, M_TOEHOLD);
			return (EFAULT);
		}
	} while (!th_wire(pg->ma, n));
	pg->p.flags = 0;
	for (i = 0; i < n; i++) {
		pa[i] = VM_PAGE_TO_PHYS(pg->ma[i]);
		if (th_page_of_file(pg->ma[i]))
			pg->p.flags |= TH_PAGES_FILE;
	}
	TH_VMSPACE_REF(vm);
	pg->vm = vm;
	pg->va = start;
	pg->charged = charged;
	pg->p.count = n;
	pg->p.pa = pa;
	if (!charged)
		th_count_wired(tom, n);
	*out = &pg->p;
	return (0);
}

/*
 * A truncation leaves wired pages where they are, but invalid: the next fault
 * fills them anew, and what is written to them before that is lost.
 */
void
th_pages_dirty(struct th_pages *p)
{
	struct th_pages_c *pg;
	u_int i;

	pg = th_pages_c(p);
	for (i = 0; i < p->count; i++)
		if (TH_PAGE_VALID(pg->ma[i]))
			vm_page_dirty(pg->ma[i]);
}

bool
th_pages_valid(struct th_pages *p, uint32_t n)
{
	struct th_pages_c *pg;
	u_int i;

	pg = th_pages_c(p);
	for (i = 0; i < MIN(n, p->count); i++)
		if (!TH_PAGE_VALID(pg->ma[i]))
			return (false);
	return (true);
}

bool
th_pages_shown(struct th_pages *p)
{
	struct th_pages_c *pg;
	pmap_t pmap;
	u_int i;

	pg = th_pages_c(p);
	pmap = vmspace_pmap(pg->vm);
	for (i = 0; i < p->count; i++)
		if (pmap_extract(pmap, pg->va + ptoa(i)) != p->pa[i])
			return (false);
	return (true);
}

void
th_job_space(struct kaiocb *job, uint64_t *space, uint32_t *generation)
{
	struct vmspace *vm;

	vm = job->userproc->p_vmspace;
	*space = (uint64_t)(uintptr_t)vm;
	*generation = vm->vm_map.timestamp;
}

/* ---- Moving bytes ------------------------------------------------------------------ */

/* Between kernel memory and byte `off' of the pages, which have no address of their own. */
static int
th_phys_io(vm_page_t *ma, vm_offset_t off, void *buf, u_int n, enum uio_rw rw)
{
	struct iovec iov;
	struct uio uio;

	iov.iov_base = buf;
	iov.iov_len = n;
	uio.uio_iov = &iov;
	uio.uio_iovcnt = 1;
	uio.uio_offset = 0;
	uio.uio_resid = n;
	uio.uio_segflg = UIO_SYSSPACE;
	uio.uio_rw = rw;
	uio.uio_td = curthread;
	return (uiomove_fromphys(ma, off, n, &uio));
}

/* The same with held pages; the range must lie within them. */
static bool
th_pages_io(struct th_pages *p, uint32_t off, void *buf, uint32_t n,
    enum uio_rw rw)
{

	return (th_phys_io(th_pages_c(p)->ma, off, buf, n, rw) == 0);
}

/* Copy out of the memory of a process that is not the current one.  May sleep. */
int
th_proc_read(struct proc *p, uint64_t addr, char *buf, size_t len)
{
	vm_page_t m;
	size_t n;
	int error;

	for (error = 0; error == 0 && len > 0; addr += n, buf += n, len -= n) {
		n = MIN(len, PAGE_SIZE - (addr & PAGE_MASK));
		if (vm_fault_quick_hold_pages(&p->p_vmspace->vm_map, addr, n,
		    VM_PROT_READ, &m, 1) != 1)
			return (EFAULT);
		error = th_phys_io(&m, addr & PAGE_MASK, buf, n, UIO_READ);
		vm_page_unhold_pages(&m, 1);
	}
	return (error);
}

uint32_t
th_rcv_copy(struct socket *so, struct th_pages *p, uint32_t off, uint32_t max)
{
	struct sockbuf *sb;
	struct mbuf *m;
	uint32_t done, n;

	sb = &so->so_rcv;
	done = 0;
	SOCKBUF_LOCK(sb);
	/* Records of a TLS session are no stream. */
	max = TH_SB_TLS(so, sb) ? 0 : MIN(max, sbavail(sb));
	for (m = sb->sb_mb; m != NULL && done < max; m = m->m_next) {
		n = MIN((uint32_t)m->m_len, max - done);
		if (n == 0)
			continue;
		/* UIO_WRITE: from the iovec to the pages */
		if (!th_pages_io(p, off + done, mtod(m, void *), n, UIO_WRITE))
			break;
		done += n;
	}
	if (done != 0)
		sbdrop_locked(sb, done);
	SOCKBUF_UNLOCK(sb);
	return (done);
}

int
th_rcv_append_pages(struct socket *so, struct th_pages *p, uint32_t off,
    uint32_t len)
{
	struct mbuf *head, *m;
	uint32_t n;

	head = m_getm2(NULL, len, M_NOWAIT, MT_DATA, 0);
	if (head == NULL)
		return (ENOBUFS);
	for (m = head; m != NULL && len > 0; m = m->m_next) {
		n = MIN((uint32_t)M_TRAILINGSPACE(m), len);
		if (!th_pages_io(p, off, mtod(m, void *), n, UIO_READ))
			break;
		m->m_len = n;
		off += n;
		len -= n;
	}
	if (len > 0) {
		m_freem(head);
		return (ENOBUFS);
	}
	th_rcv_append(so, head);
	return (0);
}

void
th_pages_move(struct th_pages *p, uint32_t from, uint32_t to, uint32_t len)
{
	uint8_t buf[512];
	uint32_t at, n;

	while (len > 0) {
		n = MIN(len, sizeof(buf));
		/* As memmove(): from the end that is not overwritten. */
		at = to < from ? 0 : len - n;
		(void)th_pages_io(p, from + at, buf, n, UIO_READ);
		(void)th_pages_io(p, to + at, buf, n, UIO_WRITE);
		len -= n;
		if (to < from) {
			from += n;
			to += n;
		}
	}
}

void
th_pages_copy(struct th_pages *p, uint32_t off, struct th_pages *to,
    uint32_t at, uint32_t len)
{
	uint8_t buf[512];
	uint32_t n;

	for (; len > 0; off += n, at += n, len -= n) {
		n = MIN(len, sizeof(buf));
		(void)th_pages_io(p, off, buf, n, UIO_READ);
		(void)th_pages_io(to, at, buf, n, UIO_WRITE);
	}
}

#ifdef TH_HAVE_EXTPG
/* An mbuf for as many of the bytes from `off' on as it has room for pages. */
static struct mbuf *
th_pages_mbuf(struct th_pages *p, uint32_t off, uint32_t len)
{
	struct mbuf *m;
	uint32_t i, n, room;

	m = TH_MB_ALLOC_EXT_PGS(M_NOWAIT, th_aiotx_mfree);
	if (m == NULL)
		return (NULL);
	i = off >> PAGE_SHIFT;
	m->m_epg_1st_off = off & PAGE_MASK;
	for (n = 0; n < MBUF_PEXT_MAX_PGS && len > 0; n++, i++) {
		room = MIN(PAGE_SIZE - (off & PAGE_MASK), len);
		m->m_epg_pa[n] = p->pa[i];
		m->m_epg_last_len = room;
		m->m_len += room;
		off += room;
		len -= room;
	}
	m->m_epg_npgs = n;
	m->m_ext.ext_size = ptoa(n);
	m->m_ext.ext_flags |= EXT_FLAG_VENDOR1;
	m->m_ext.ext_arg1 = p;
	return (m);
}
#else
/* An mbuf with no data pointer that names the pages; see th_mbuf_run(). */
static struct mbuf *
th_pages_mbuf(struct th_pages *p, uint32_t off, uint32_t len)
{
	struct mbuf *m;

	m = m_get(M_NOWAIT, MT_DATA);
	if (m == NULL)
		return (NULL);
	/* m_extadd() takes flags of the mbuf, and sets those of m_ext itself. */
	m_extadd(m, (char *)p, len, th_aiotx_mfree, p,
	    (void *)(uintptr_t)off, M_RDONLY, EXT_NET_DRV);
	m->m_ext.ext_flags |= EXT_FLAG_VENDOR1;
	m->m_data = NULL;
	m->m_len = len;
	return (m);
}
#endif

/* The set lives: the mbuf was a user of it. */
void
th_aiotx_mfree(struct mbuf *m)
{
	struct th_pages_c *pg;

	pg = th_pages_c(m->m_ext.ext_arg1);
	toehold_aiotx_rele(pg->owner, pg->slot);
}

/*
 * Append mbufs that name pages; `last' is the one that may be short.  From 13 on
 * sbcompress() copies an unmapped mbuf of at most MLEN bytes, and lets its pages
 * go, unless it is shared: so that one is, for as long as that takes.
 */
static void
th_snd_append_named(struct socket *so, struct mbuf *m,
    struct mbuf *last __unused)
{

#ifdef TH_HAVE_EXTPG
	SOCKBUF_LOCK(&so->so_snd);
	last->m_ext.ext_count++;
	sbappendstream_locked(&so->so_snd, m, 0);
	last->m_ext.ext_count--;
	SOCKBUF_UNLOCK(&so->so_snd);
#else
	th_snd_append(so, m);
#endif
}

int
th_snd_append_pages(struct socket *so, struct th_pages *p, void *owner,
    uint32_t slot, uint32_t off, uint32_t len)
{
	struct mbuf *head, **tail, *m;
	struct th_pages_c *pg;

	pg = th_pages_c(p);
	pg->owner = owner;
	pg->slot = slot;
	head = m = NULL;
	tail = &head;
	while (len > 0) {
		m = th_pages_mbuf(p, off, len);
		if (m == NULL) {
			/* Each mbuf ends its use as it goes. */
			m_freem(head);
			return (ENOBUFS);
		}
		toehold_aiotx_hold(owner, slot);
		off += m->m_len;
		len -= m->m_len;
		*tail = m;
		tail = &m->m_next;
	}
	if (head != NULL)
		th_snd_append_named(so, head, m);
	return (0);
}
