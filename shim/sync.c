/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Memory, mutexes, panic: what Rust's core needs of any kernel.
 */
#include "internal.h"

struct th_mtx {
	struct mtx m;
};

void *
th_malloc(size_t size, uint32_t flags)
{

	return (malloc(size, M_TOEHOLD, M_ZERO |
	    ((flags & TH_WAITOK) != 0 ? M_WAITOK : M_NOWAIT)));
}

void
th_free(void *p)
{

	free(p, M_TOEHOLD);
}

struct th_mtx *
th_mtx_alloc(const char *name)
{
	struct th_mtx *m;

	m = malloc(sizeof(*m), M_TOEHOLD, M_WAITOK | M_ZERO);
	mtx_init(&m->m, name, NULL, MTX_DEF);
	return (m);
}

void
th_mtx_free(struct th_mtx *m)
{

	mtx_destroy(&m->m);
	free(m, M_TOEHOLD);
}

void
th_mtx_lock(struct th_mtx *m)
{

	mtx_lock(&m->m);
}

void
th_mtx_unlock(struct th_mtx *m)
{

	mtx_unlock(&m->m);
}

void
th_panic(const char *msg, size_t len)
{

	panic("toehold: %.*s", (int)len, msg);
}
