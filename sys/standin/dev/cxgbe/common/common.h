/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Stands for FreeBSD's dev/cxgbe/common/common.h, as of 12.1, 14.2 and 15.0: what is derived from
 * an adapter's parameters. The parameters and limits themselves stand in adapter.h.
 */
#ifndef __CHELSIO_COMMON_H
#define __CHELSIO_COMMON_H

#include "../adapter.h"

/* Gb/s. */
static inline int
port_top_speed(const struct port_info *pi)
{

	return (pi->link_cfg.speed / 1000);
}

#if __FreeBSD_version >= 1500000
static inline int
chip_id(const struct adapter *sc)
#else
static inline int
chip_id(struct adapter *sc)
#endif
{

	return (sc->params.chipid);
}

static inline int
chip_rev(struct adapter *sc)
{

	return (sc->params.rev);
}

static inline int
is_t4(struct adapter *sc)
{

	return (chip_id(sc) == CHELSIO_T4);
}

static inline int
is_t5(struct adapter *sc)
{

	return (chip_id(sc) == CHELSIO_T5);
}

static inline int
is_t6(struct adapter *sc)
{

	return (chip_id(sc) == CHELSIO_T6);
}

static inline int
is_offload(const struct adapter *sc)
{

	return (sc->params.offload);
}

/* One tick of the TP is 2^tre clocks; cclk counts kHz. */
static inline u_int
tcp_ticks_to_us(const struct adapter *sc, u_int ticks)
{

	return (((uint64_t)ticks << sc->params.tp.tre) /
	    (sc->params.vpd.cclk / 1000));
}

static inline u_int
us_to_tcp_ticks(const struct adapter *sc, u_long us)
{

	return ((us * sc->params.vpd.cclk / 1000) >> sc->params.tp.tre);
}

/* Replace the bits of mask by val. */
void t4_set_reg_field(struct adapter *, unsigned int, uint32_t, uint32_t);

#endif
