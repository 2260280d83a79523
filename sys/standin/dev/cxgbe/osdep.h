/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Stands for FreeBSD's dev/cxgbe/osdep.h: the names of integers with a byte order.
 * Our own declarations, for builds that have no FreeBSD source tree.
 */
#ifndef __CXGBE_OSDEP_H_
#define __CXGBE_OSDEP_H_

#include <sys/types.h>
#include <sys/param.h>
#include <sys/endian.h>

typedef uint16_t __be16;
typedef uint32_t __be32;
typedef uint64_t __be64;

#ifndef DIV_ROUND_UP
#define DIV_ROUND_UP(x, y) howmany(x, y)
#endif

#endif
