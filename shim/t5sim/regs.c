/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Registers: plain memory, every one at its address. What the card is made of is written
 * there once; nothing the driver writes changes the card.
 */
#include "softc.h"

static volatile uint32_t *
ts_reg(struct ts_softc *ts, uint32_t addr)
{

	return ((volatile uint32_t *)(void *)(ts->regs + addr));
}

/* May sleep. */
void
ts_regs_init(struct ts_softc *ts)
{
	const uint8_t *ps = ts->info.page_shift;

	ts->regs = malloc(TS_REGS_SIZE, M_CXGBE, M_WAITOK | M_ZERO);
	*ts_reg(ts, A_TP_CMM_TCB_BASE) = 0;
	*ts_reg(ts, A_TP_PARA_REG0) = V_DUPACKTHRESH(3);
	*ts_reg(ts, A_ULP_RX_TDDP_PSZ) = (ps[0] - 12) << S_HPZ0 |
	    (ps[1] - 12) << S_HPZ1 | (ps[2] - 12) << S_HPZ2 |
	    (uint32_t)(ps[3] - 12) << S_HPZ3;
}

/* Any context but a spin lock's. */
void
t4_set_reg_field(struct adapter *sc, unsigned int addr, uint32_t mask,
    uint32_t val)
{
	struct ts_softc *ts = ts_of(sc);
	volatile uint32_t *r;

	if (addr % sizeof(*r) != 0 || addr >= TS_REGS_SIZE)
		return;
	r = ts_reg(ts, addr);
	mtx_lock(&ts->pend_lock);
	*r = (*r & ~mask) | (val & mask);
	mtx_unlock(&ts->pend_lock);
}

#ifdef TOEHOLD_STANDIN

uint32_t
t4_read_reg(struct adapter *sc, uint32_t addr)
{

	if (addr % sizeof(addr) != 0 || addr >= TS_REGS_SIZE)
		return (0);
	return (*ts_reg(ts_of(sc), addr));
}

void
t4_write_reg(struct adapter *sc, uint32_t addr, uint32_t val)
{

	t4_set_reg_field(sc, addr, UINT32_MAX, val);
}

#endif
