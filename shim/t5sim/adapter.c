/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * The adapter as a TOE driver sees it: parameters, ports, queues, and operations that
 * exclude each other.
 */
#include "softc.h"

/* What it takes from the kernel for sleeping on `flags'. */
#include <sys/proc.h>

static void
ts_params_init(struct ts_softc *ts)
{
	struct adapter_params *p = &ts->sc.params;
	struct tp_params *tp = &p->tp;
	int i;

	p->chipid = ts->info.chip;
	p->rev = 1;
	p->offload = 1;
	p->nports = T5SIM_NPORTS;
	p->ofldq_wr_cred = ts->info.tx_credits;
	p->ulptx_memwrite_dsgl = false;
	for (i = 0; i < NMTUS; i++)
		p->mtus[i] = ts->info.mtus[i];
	/* A T5's core clock of 500 MHz; one TP tick of 4.096 us. */
	p->vpd.cclk = 500000;
	tp->tre = 11;
	tp->dack_re = 8;
#ifndef TX_MODQ
	for (i = 0; i < MAX_NCHAN; i++)
		tp->tx_modq[i] = i;
#endif
	/* No filter tuple is configured. */
	tp->fcoe_shift = tp->port_shift = tp->vnic_shift = tp->vlan_shift =
	    tp->tos_shift = tp->protocol_shift = tp->ethertype_shift =
	    tp->macmatch_shift = tp->matchtype_shift = tp->frag_shift = -1;
	ts->chip.nchan = T5SIM_NPORTS;
	ts->chip.cng_ch_bits_log = 2;
#ifdef TS_NSCHED_CLS
	TS_NSCHED_CLS(&ts->sc) = TS_NSCHED;
#else
	ts->chip.nsched_cls = TS_NSCHED;
#endif
	ts->sc.chip_params = &ts->chip;
}

/* Defaults of dev.t5nex.0.toe.*, FreeBSD's. */
static void
ts_tunables_init(struct tom_tunables *tt)
{

	tt->cong_algorithm = -1;
	tt->sndbuf = -1;
	tt->ddp = 0;
	tt->rx_coalesce = -1;
	tt->tls = 0;
	tt->tx_align = -1;
	tt->tx_zcopy = 0;
	tt->cop_managed_offloading = 0;
#ifdef TS_TUNABLES_14
	tt->autorcvbuf_inc = 16 * 1024;
	tt->update_hc_on_pmtu_change = 1;
	tt->iso = 1;
#endif
}

static void
ts_port_init(struct ts_softc *ts, int i)
{
	struct port_info *pi = &ts->pi[i];
	struct vi_info *vi = &ts->vi[i];

	pi->adapter = &ts->sc;
	pi->vi = vi;
	pi->nvi = 1;
	TS_HW_PORT(pi) = pi->port_id = pi->tx_chan = i;
	pi->rx_e_chan_map = 1 << i;
	pi->link_cfg.speed = ts->info.line_rate;
	pi->link_cfg.link_ok = 1;
	mtx_init(&pi->pi_lock, "t5sim port", NULL, MTX_DEF);
	ts->sc.port[i] = pi;

	vi->pi = pi;
	TS_VI_INIT(vi, &ts->sc);
	vi->viid = 0x580 + i;
	vi->vin = i;
	vi->vfvld = 1;
	vi->smt_idx = i;
	vi->xact_addr_filt = i;
	vi->ntxq = vi->nrxq = 1;
	vi->first_txq = vi->first_rxq = i;
	vi->nofldtxq = vi->nofldrxq = TS_NOFLD;
	vi->first_ofld_txq = vi->first_ofld_rxq = i * TS_NOFLD;
	vi->ofld_tmr_idx = 1;
	vi->ofld_pktc_idx = -1;
	vi->flags = VI_INIT_DONE;
	memcpy(vi->hw_addr, ts->info.macs[i], ETHER_ADDR_LEN);
}

static void
ts_queues_init(struct ts_softc *ts)
{
	struct sge *sge = &ts->sc.sge;
	int i;

	sge->nofldrxq = sge->nofldtxq = TS_NOFLDQ;
	sge->fwq.adapter = &ts->sc;
	sge->fwq.abs_id = sge->fwq.cntxt_id = TS_IQ_BASE - 1;
	sge->ctrlq = ts->ctrlq;
	sge->ofld_txq = ts->ofld_txq;
	sge->ofld_rxq = ts->ofld_rxq;
	for (i = 0; i < T5SIM_NPORTS; i++)
		ts_wrq_init(ts, &ts->ctrlq[i], EQ_CTRL, i, i);
	for (i = 0; i < TS_NOFLDQ; i++) {
		ts_wrq_init(ts, TS_TXQ_WRQ(&ts->ofld_txq[i]), EQ_OFLD, i,
		    i / TS_NOFLD);
		ts->ofld_rxq[i].iq.adapter = &ts->sc;
		ts->ofld_rxq[i].iq.abs_id = TS_IQ_BASE + i;
		ts->ofld_rxq[i].iq.cntxt_id = TS_IQ_BASE + i;
	}
}

/* `dev' is NULL where there is none. NULL: the card or a table could not be made. May sleep. */
struct ts_softc *
ts_adapter_new(device_t dev, int unit)
{
	struct ts_softc *ts;
	struct adapter *sc;
	int i;

	ts = malloc(sizeof(*ts), M_CXGBE, M_WAITOK | M_ZERO);
	sc = &ts->sc;
	ts->card = t5sim_card_new();
	if (ts->card == NULL) {
		free(ts, M_CXGBE);
		return (NULL);
	}
	t5sim_card_info(ts->card, &ts->info);

	sc->dev = dev;
	ts->unit = unit;
	TS_SET_NAMEUNIT(sc, unit);
	strlcpy(sc->lockname, TS_NAMEUNIT(sc), sizeof(sc->lockname));
	mtx_init(&sc->sc_lock, sc->lockname, NULL, MTX_DEF);
	rw_init(&sc->policy_lock, "t5sim offload policy");
	sx_init(&ts->card_lock, "t5sim card");
	mtx_init(&ts->pend_lock, "t5sim pending", NULL, MTX_DEF);
	STAILQ_INIT(&ts->pend_wr);
	mbufq_init(&ts->pend_frames, 1024);

	sc->pf = sc->mbox = 4;
	ts_params_init(ts);
	ts_tunables_init(&sc->tt);
	ts_regs_init(ts);
	ts_t4nex_init(ts);
	ts_queues_init(ts);
	ts_clip_init(ts);
	for (i = 0; i < T5SIM_NPORTS; i++)
		ts_port_init(ts, i);

	sc->tids.ntids = ts->info.ntids;
	sc->tids.nstids = ts->info.nstids;
	sc->tids.stid_base = ts->info.ntids;
	sc->tids.natids = MIN(ts->info.natids, MAX_ATIDS);
	sc->vres.ddp.start = ts->info.ddp_start;
	sc->vres.ddp.size = ts->info.ddp_size;
	sc->vres.l2t.size = TS_L2T_SIZE;
	ts->tid_release = malloc(howmany(sc->tids.ntids, NBBY), M_CXGBE,
	    M_WAITOK | M_ZERO);
	if (ts_atids_init(ts) != 0 || t4_init_l2t(sc, M_WAITOK) != 0) {
		ts_adapter_free(ts);
		return (NULL);
	}
	sc->flags = FULL_INIT_DONE;
	return (ts);
}

/* No interface, thread or sysctl refers to it any more. May sleep. */
void
ts_adapter_free(struct ts_softc *ts)
{
	struct adapter *sc = &ts->sc;
	int i;

	if (sc->l2t != NULL)
		TS_FREE_L2T(sc);
	ts_atids_fini(ts);
	for (i = 0; i < T5SIM_NPORTS; i++) {
		mtx_destroy(&ts->pi[i].pi_lock);
		ts_wrq_destroy(&ts->ctrlq[i]);
	}
	for (i = 0; i < TS_NOFLDQ; i++)
		ts_wrq_destroy(TS_TXQ_WRQ(&ts->ofld_txq[i]));
	ts_clip_destroy(ts);
	free(ts->tid_release, M_CXGBE);
#ifdef TS_TLS_RX_PORTS
	free(sc->tt.tls_rx_ports, M_CXGBE);
#endif
	t5sim_card_free(ts->card);
	ts_t4nex_fini(ts);
	free(ts->regs, M_CXGBE);
	mtx_destroy(&ts->pend_lock);
	sx_destroy(&ts->card_lock);
	rw_destroy(&sc->policy_lock);
	mtx_destroy(&sc->sc_lock);
	free(ts, M_CXGBE);
}

int
begin_synchronized_op(struct adapter *sc, struct vi_info *vi, int flags,
    char *wmesg)
{
	int rc;

	rc = 0;
	ADAPTER_LOCK(sc);
	while (rc == 0) {
		if (vi != NULL && TS_IS_DOOMED(vi))
			rc = ENXIO;
		else if (!IS_BUSY(sc))
			break;
		else if ((flags & SLEEP_OK) == 0)
			rc = EBUSY;
		else if (mtx_sleep(&sc->flags, &sc->sc_lock,
		    (flags & INTR_OK) ? PCATCH : 0, wmesg, 0) != 0)
			rc = EINTR;
	}
	if (rc == 0) {
		sc->flags |= CXGBE_BUSY;
		sc->last_op = wmesg;
		sc->last_op_thr = curthread;
	}
	if (rc != 0 || (flags & HOLD_LOCK) == 0)
		ADAPTER_UNLOCK(sc);
	return (rc);
}

void
end_synchronized_op(struct adapter *sc, int flags)
{

	if ((flags & LOCK_HELD) == 0)
		ADAPTER_LOCK(sc);
	ADAPTER_LOCK_ASSERT_OWNED(sc);
	KASSERT(IS_BUSY(sc), ("%s: no operation under way", __func__));
	sc->flags &= ~CXGBE_BUSY;
	wakeup(&sc->flags);
	ADAPTER_UNLOCK(sc);
}
