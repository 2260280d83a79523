/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * t5sim.ko's own state, shared by its C files.
 *
 * Locks, in order: card_lock (sx) - sc_lock - eq_lock of a queue - pend_lock. card_lock
 * covers the card and is only ever taken with no other lock held; pend_lock covers what
 * waits for the engine thread. Work requests may come under any lock of the TOE driver:
 * that path ends in pend_lock and never sleeps. The two locks of uld.c come before all of
 * these: list lock - an operation between begin_ and end_synchronized_op - ULD lock.
 */
#ifndef T5SIM_SOFTC_H
#define T5SIM_SOFTC_H

/* cxgbe's headers declare the upper-layer interface under TCP_OFFLOAD. */
#include "opt_inet.h"
#include "opt_inet6.h"

#include <sys/param.h>
#include <sys/systm.h>
#include <sys/kernel.h>
#include <sys/lock.h>
#include <sys/malloc.h>
#include <sys/mbuf.h>
#include <sys/module.h>
#include <sys/mutex.h>
#include <sys/sx.h>
#include <sys/sysctl.h>
#include <sys/callout.h>
#include <sys/taskqueue.h>

#include <dev/cxgbe/common/common.h>
#include <dev/cxgbe/t4_clip.h>
#include <dev/cxgbe/t4_l2t.h>
#include <dev/cxgbe/common/t4_regs.h>

#include "t5sim.h"
#include "compat_t5sim.h"

#define TS_NOFLD	2	/* offload queues of a port, each way */
#define TS_NOFLDQ	(T5SIM_NPORTS * TS_NOFLD)
#define TS_IQ_BASE	16	/* abs_id of the first ingress queue */
#define TS_REGS_SIZE	(332 * 1024) /* bytes of a T5's registers */
#define TS_L2T_SIZE	256
#define TS_NSCHED	16	/* scheduling classes of a port */

/* One that is started and not yet committed has its wr_len negated. */
STAILQ_HEAD(ts_wr_list, wrqe);

struct ts_softc {
	struct adapter sc;	/* first */
	LIST_ENTRY(ts_softc) link;	/* of those that are published */
	int unit;		/* t5nex0, t5nex1, ... */
	struct port_info pi[T5SIM_NPORTS];
	struct vi_info vi[T5SIM_NPORTS];
	struct sge_wrq ctrlq[T5SIM_NPORTS];
	TS_TXQ ofld_txq[TS_NOFLDQ];
	struct sge_ofld_rxq ofld_rxq[TS_NOFLDQ];
	struct chip_params chip;
	uint8_t *regs;		/* TS_REGS_SIZE, each at its address */

	struct sx card_lock;
	struct t5sim_card *card;
	struct t5sim_info info;

	struct mtx pend_lock;
	struct ts_wr_list pend_wr;	/* committed, in order */
	struct mbufq pend_frames;	/* rcvif is the interface to enter by */
	if_t enter[T5SIM_NPORTS];	/* it, for each port; NULL: closed */
	struct taskqueue *tq;
	struct task run;
	struct callout tick;
	u_int stopping;
	u_int off;		/* stopped, to be reset and restarted */

	/* under pend_lock */
	u_int wr_fail_nth;	/* every n-th start_wrq_wr fails; 0: none */
	u_int wr_starts;
	uint8_t *tid_release;	/* bits: tids to release when there is memory */
	u_int n_tid_release;

	struct mtx clip_lock;
	TAILQ_HEAD(, clip_entry) clips;

	/* written by the engine thread alone, or under pend_lock */
	uint64_t n_wr_fail;
	uint64_t n_wr_off;	/* came for the adapter while it was stopped */
	uint64_t n_cpl_unhandled;
	uint64_t n_cpl_badq;
	uint64_t n_frames;
	uint64_t n_frame_drops;

	struct sysctl_ctx_list ctx;
	struct sysctl_ctx_list port_ctx[T5SIM_NPORTS];
};

static inline struct ts_softc *
ts_of(struct adapter *sc)
{

	return (__containerof(sc, struct ts_softc, sc));
}

/* A CPL on its way to its handler. */
struct ts_cpl_rec {
	STAILQ_ENTRY(ts_cpl_rec) link;
	struct mbuf *m;
	uint16_t rxq;
	struct rss_header rss __aligned(8);
	uint8_t cpl[] __aligned(8);
};

STAILQ_HEAD(ts_sink, ts_cpl_rec);

/* adapter.c */
struct ts_softc *ts_adapter_new(device_t, int unit);
void ts_adapter_free(struct ts_softc *);

/* module.c */
struct ts_softc *ts_start(device_t, int unit);
int ts_doom(struct ts_softc *);
void ts_undoom(struct ts_softc *);
void ts_stop(struct ts_softc *);

/* regs.c */
void ts_regs_init(struct ts_softc *);

/* cpl.c */
void ts_cpl_deliver(struct ts_softc *, struct ts_sink *);
void ts_cpl_forget(void);

/* engine.c */
void ts_engine_start(struct ts_softc *);
void ts_engine_stop(struct ts_softc *);
void ts_engine_kick(struct ts_softc *);
void ts_engine_pause(struct ts_softc *);
uint64_t ts_now(void);

/* tid.c */
void ts_tid_release_deferred(struct ts_softc *);
int ts_atids_init(struct ts_softc *);
void ts_atids_fini(struct ts_softc *);

/* wrq.c */
void ts_wrq_init(struct ts_softc *, struct sge_wrq *, u_int type, u_int idx,
    u_int chan);
void ts_wrq_destroy(struct sge_wrq *);
u_int ts_wrq_index(struct sge_wrq *);

/* ifnet.c */
int ts_port_attach(struct ts_softc *, int);
void ts_port_detach(struct ts_softc *, int);
void ts_vi_doom(struct adapter *, struct vi_info *);
void ts_frame_input(struct ts_softc *, struct mbuf *);

/* uld.c */
void ts_uld_modload(void);
void ts_uld_modunload(void);
bool ts_uld_any(void);
void ts_publish(struct ts_softc *, bool on);
int ts_toe_capability(struct vi_info *, bool);

void ts_uld_stop(struct adapter *);
void ts_uld_restart(struct adapter *);

/* suspend.c */
bool ts_is_off(struct ts_softc *);
int ts_suspend(struct ts_softc *);
int ts_resume(struct ts_softc *);

/* clip.c */
void ts_clip_init(struct ts_softc *);
void ts_clip_destroy(struct ts_softc *);

/* sysctl.c */
void ts_sysctl_attach(struct ts_softc *);
void ts_sysctl_detach(struct ts_softc *);
void ts_sysctl_port_attach(struct ts_softc *, int);
void ts_sysctl_port_detach(struct ts_softc *, int);

#endif
