/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Built for a source tree: members of the real structures that the stand-in does not
 * declare, and what another TOE driver takes from if_cxgbe and toehold does not.
 */
#include "softc.h"

#ifndef TOEHOLD_STANDIN

#include <dev/cxgbe/common/t4_tcb.h>

static const struct devnames ts_names = {
	.nexus_name = "t5nex",
	.ifnet_name = "cxl",
};

static const struct {
	uint32_t cap;
	u_int speed;	/* Mb/s */
} ts_speeds[] = {
	{ FW_PORT_CAP32_SPEED_100M, 100 },
	{ FW_PORT_CAP32_SPEED_1G, 1000 },
	{ FW_PORT_CAP32_SPEED_10G, 10000 },
	{ FW_PORT_CAP32_SPEED_25G, 25000 },
	{ FW_PORT_CAP32_SPEED_40G, 40000 },
	{ FW_PORT_CAP32_SPEED_50G, 50000 },
	{ FW_PORT_CAP32_SPEED_100G, 100000 },
	{ FW_PORT_CAP32_SPEED_200G, 200000 },
	{ FW_PORT_CAP32_SPEED_400G, 400000 },
};

/* The highest of the speeds in a set of port capabilities, Mb/s; 0 if it has none. */
unsigned int
fwcap_to_speed(uint32_t caps)
{
	u_int best, i;

	best = 0;
	for (i = 0; i < nitems(ts_speeds); i++)
		if ((caps & ts_speeds[i].cap) != 0)
			best = ts_speeds[i].speed;
	return (best);
}

/* The fastest link that is no faster than the simulated one. */
static uint32_t
ts_speed_cap(u_int speed)
{
	uint32_t cap;
	u_int i;

	cap = ts_speeds[0].cap;
	for (i = 0; i < nitems(ts_speeds); i++)
		if (ts_speeds[i].speed <= speed)
			cap = ts_speeds[i].cap;
	return (cap);
}

/*
 * How long data waits for a DDP buffer, ns, and how much of it is handed over then. Programs
 * of a kernel, above all of one that is emulated, are slower than those of the test kernel
 * that the card's own defaults are for; and FreeBSD's TOE driver takes for granted, and
 * asserts with INVARIANTS, that nothing more comes while it posts the buffer that the first
 * bytes made it post.
 */
#define TS_INDICATE_HOLD	50000000
#define TS_INDICATE_SIZE	65535

static void
ts_knob_default(struct ts_softc *ts, const char *name, uint64_t value)
{
	uint32_t i;

	for (i = 0; i < t5sim_nknobs(); i++)
		if (strcmp(t5sim_knob_name(i), name) == 0)
			(void)t5sim_knob_set(ts->card, i, value);
}

/* May sleep. Registers are there already. */
void
ts_t4nex_init(struct ts_softc *ts)
{
	struct adapter *sc = &ts->sc;
	struct link_config *lc;
	int i;

	/* The inline accessors of registers read and write memory through these. */
	sc->bt = X86_BUS_SPACE_MEM;
	sc->bh = (bus_space_handle_t)ts->regs;
	sc->mmio_len = TS_REGS_SIZE;

	sc->names = &ts_names;
	sc->toecaps = FW_CAPS_CONFIG_TOE;
	sc->traceq = -1;
	for (i = 0; i < T5SIM_NPORTS; i++) {
		sc->chan_map[i] = i;
		lc = &ts->pi[i].link_cfg;
		TS_LINK_CAPS(lc, ts_speed_cap(ts->info.line_rate));
	}
	ts_sched_init(ts);
	ts_knob_default(ts, "indicate_hold", TS_INDICATE_HOLD);
	ts_knob_default(ts, "indicate_size", TS_INDICATE_SIZE);
}

void
ts_t4nex_fini(struct ts_softc *ts)
{

	ts_sched_fini(ts);
}

/* How long a read of card memory waits for the engine, which holds the card while it runs. */
#define TS_MEMWIN_WAIT	(100 * SBT_1MS)

/*
 * The caller may hold a mutex, so this may not sleep, and the card is under a lock that
 * sleeps: try for it. Its holder wants no lock of the caller's.
 */
static bool
ts_card_trylock(struct ts_softc *ts)
{
	sbintime_t end;

	end = sbinuptime() + TS_MEMWIN_WAIT;
	while (!sx_try_xlock(&ts->card_lock)) {
		if (sbinuptime() > end)
			return (false);
		cpu_spinwait();
	}
	return (true);
}

/*
 * Read card memory: there is nothing in it but TCBs, one for each tid from
 * TP_CMM_TCB_BASE on, as the card keeps them. 0, EINVAL for an address or length that lies
 * in no TCB, EBUSY if the card is at work for too long (the words are zeros then),
 * EOPNOTSUPP for a write. Never sleeps.
 */
int
rw_via_memwin(struct adapter *sc, int idx, uint32_t addr, uint32_t *val,
    int len, int rw)
{
	struct ts_softc *ts = ts_of(sc);
	uint8_t tcb[TCB_SIZE];
	uint32_t base, tid, at;

	if (rw != 0)
		return (EOPNOTSUPP);
	base = t4_read_reg(sc, A_TP_CMM_TCB_BASE);
	if (addr < base || addr % 4 != 0 || len <= 0 || len % 4 != 0)
		return (EINVAL);
	tid = (addr - base) / TCB_SIZE;
	at = (addr - base) % TCB_SIZE;
	if (tid >= sc->tids.ntids || len > (int)(TCB_SIZE - at))
		return (EINVAL);
	if (!ts_card_trylock(ts)) {
		memset(val, 0, len);
		return (EBUSY);
	}
	t5sim_card_tcb(ts->card, tid, tcb);
	sx_xunlock(&ts->card_lock);
	memcpy(val, tcb + at, len);
	return (0);
}

/* The key that undoes AES with a key of so many bits (128, 192, 256), as the card wants it. */
void
t4_aes_getdeckey(void *dec_key, const void *enc_key, unsigned int kbits)
{

	t5sim_aes_deckey(dec_key, enc_key, kbits);
}

#endif
