/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * What the Rust half takes from the kernel: memory, physical memory, and panic(9).
 */
#include "softc.h"

#include <sys/uio.h>
#include <vm/vm.h>
#include <vm/vm_param.h>
#include <vm/vm_page.h>

/* malloc(9) aligns to this at least. */
#define TS_MALLOC_ALIGN	8

/* A stricter alignment costs room in front, where the block's start is kept. */
void *
ts_alloc(size_t size, size_t align, int zero)
{
	uint8_t *block;
	uintptr_t p;
	int flags;

	flags = M_WAITOK | (zero ? M_ZERO : 0);
	if (align <= TS_MALLOC_ALIGN)
		return (malloc(MAX(size, 1), M_CXGBE, flags));
	block = malloc(size + align + sizeof(block), M_CXGBE, flags);
	p = roundup2((uintptr_t)block + sizeof(block), align);
	((uint8_t **)p)[-1] = block;
	return ((void *)p);
}

void
ts_free(void *p, size_t size, size_t align)
{

	if (align > TS_MALLOC_ALIGN)
		p = ((uint8_t **)p)[-1];
	free(p, M_CXGBE);
}

void
ts_panic(const uint8_t *text, size_t len)
{

	panic("t5sim: %.*s", (int)MIN(len, 512), (const char *)text);
}

/* One page at a time; every page is checked before any byte moves. */
static int
ts_dma(uint64_t pa, uint8_t *buf, size_t len, enum uio_rw rw)
{
	struct iovec iov;
	struct uio uio;
	vm_page_t pg;
	uint64_t at;
	size_t n, left;
	int rc;

	if (len == 0)
		return (0);
	if (pa + len - 1 < pa)
		return (EFAULT);
	for (at = trunc_page(pa); at <= pa + len - 1; at += PAGE_SIZE)
		if (PHYS_TO_VM_PAGE(at) == NULL)
			return (EFAULT);
	for (left = len; left > 0; left -= n, pa += n, buf += n) {
		n = MIN(left, PAGE_SIZE - (pa & PAGE_MASK));
		pg = PHYS_TO_VM_PAGE(trunc_page(pa));
		iov.iov_base = buf;
		iov.iov_len = n;
		memset(&uio, 0, sizeof(uio));
		uio.uio_iov = &iov;
		uio.uio_iovcnt = 1;
		uio.uio_resid = n;
		uio.uio_segflg = UIO_SYSSPACE;
		uio.uio_rw = rw;
		uio.uio_td = curthread;
		rc = uiomove_fromphys(&pg, pa & PAGE_MASK, n, &uio);
		if (rc != 0 || uio.uio_resid != 0)
			return (EFAULT);
	}
	return (0);
}

int
ts_dma_read(uint64_t pa, uint8_t *buf, size_t len)
{

	return (ts_dma(pa, buf, len, UIO_READ));
}

int
ts_dma_write(uint64_t pa, const uint8_t *buf, size_t len)
{

	return (ts_dma(pa, __DECONST(uint8_t *, buf), len, UIO_WRITE));
}
