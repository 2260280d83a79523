/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * What the shim's files share among themselves.
 */
#ifndef TOEHOLD_INTERNAL_H
#define TOEHOLD_INTERNAL_H

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
#include <sys/rwlock.h>
#include <sys/sx.h>
#include <sys/proc.h>
#include <sys/counter.h>
#include <sys/eventhandler.h>
#include <sys/callout.h>
#include <sys/refcount.h>
#include <sys/socket.h>
#include <sys/socketvar.h>
#include <sys/protosw.h>
#include <sys/sysctl.h>
#include <sys/taskqueue.h>

#include <net/if.h>
#include <net/if_var.h>
#include <net/if_types.h>
#include <net/ethernet.h>
#include <net/vnet.h>
#include <netinet/in.h>
#include <netinet/in_pcb.h>
#include <netinet/in_var.h>
#include <netinet/tcp.h>
#include <netinet/tcp_fsm.h>
#include <netinet/tcp_seq.h>
#include <netinet/tcp_timer.h>
#include <netinet/tcp_var.h>
#include <netinet/toecore.h>

#include <dev/cxgbe/common/common.h>

#include "toehold.h"
#include "compat.h"

MALLOC_DECLARE(M_TOEHOLD);

/*
 * Default of toe.tx_zcopy_min.  Measured on x86: to pin pages costs 520 ns and
 * 68 ns for each, to copy one 209 ns in a stream and 411 ns from cold memory,
 * what else a held page costs about 300 ns for each write.  They break even at
 * 3 to 6 KB if the buffer is in the cache of page sets, at 10 to 24 KB if not.
 */
#define TH_TX_ZCOPY_MIN	8192

/*
 * Default of toe.answer_timeout, seconds.  An adapter answers in microseconds;
 * this is past any stall of its queues and past a reset of its firmware.
 */
#define TH_ANSWER_TIMEOUT	30

/* One per adapter that the module is active on; adapter.tom_softc. */
struct th_tom {
	struct toedev tod;		/* must stand first: tod_th() */
	struct adapter *sc;
	LIST_ENTRY(th_tom) all;		/* budget.c */
	void *rs;			/* the Rust half's Adapter */
	bool own_atids;			/* the atid table is ours to free */
	struct sysctl_ctx_list ctx;
	/* By class; the last row is what no connection did. */
	counter_u64_t counters[TH_NCLASSES + 1][TH_NCOUNTERS];
	volatile u_long gauge[TH_NGAUGES];
	volatile u_long gauge_max[TH_NGAUGES];
	int ddp_cache;			/* sysctl toe.ddp_cache */
	int answer_timeout;		/* sysctl toe.answer_timeout, seconds */
	int tx_zcopy_min;		/* sysctl toe.tx_zcopy_min, bytes */
	u_long max_wired;		/* sysctl toe.max_wired, pages */
	u_long max_wired_proc;		/* sysctl toe.max_wired_proc; 0: half */
	int memlock;			/* sysctl toe.memlock */
	eventhandler_tag lowmem;
	eventhandler_tag exits, execs;

	struct mtx l2_lock;
	bool l2_stopped;		/* the adapter is */
#define TH_L2_BUCKETS	64
	LIST_HEAD(th_l2list, th_l2e) l2[TH_L2_BUCKETS];	/* next hops in use */
	struct task l2_task;		/* tells of WRs that were not sent */
	STAILQ_HEAD(, th_l2wr) l2_unsent;

	struct mtx retry_lock;
	sbintime_t retry_at;		/* when the callout comes */
	struct callout retry_callout;
	struct task retry_task;

	struct mtx vm_lock;
	SLIST_HEAD(, th_pages_c) vm_free;	/* wait for vmspace_free() */
	struct task vm_task;
};

static inline struct th_tom *
tod_th(struct toedev *tod)
{

	return ((struct th_tom *)tod);
}

struct vmspace;

/* cxgbe.c */
int th_cxgbe_register(void);
int th_cxgbe_unregister(void);
int th_adapter_info(struct adapter *, struct th_adapter_info *);
void th_set_tagmask(struct adapter *, uint32_t size);
/* stop.c */
int th_stop(struct adapter *);
int th_restart(struct adapter *);
/* stats.c */
void th_stats_alloc(struct th_tom *);
void th_stats_free(struct th_tom *);
void th_sysctls(struct th_tom *);
/* toedev.c */
void th_toedev_init(struct th_tom *);
void th_pick_vi(struct adapter *, struct vi_info *, struct th_vi *);
int th_protosw_init(void);
/* aio.c */
int th_aio_queue(struct socket *, struct kaiocb *);
void th_aiotx_mfree(struct mbuf *);
/* vm.c */
int th_proc_read(struct proc *, uint64_t addr, char *buf, size_t len);
void th_vm_init(struct th_tom *);
void th_vm_fini(struct th_tom *);
/* budget.c */
void th_count_wired(struct th_tom *, int64_t delta);
void th_uncharge(struct th_tom *, struct vmspace *, u_int n);
void th_vm_watch(struct th_tom *);
void th_vm_unwatch(struct th_tom *);
/* l2t.c */
void th_l2_init(struct th_tom *);
void th_l2_fini(struct th_tom *);
void th_l2_stop(struct th_tom *);
void th_l2_restart(struct th_tom *);
void th_l2_update(struct toedev *, struct ifnet *, struct sockaddr *,
    uint8_t *, uint16_t);

#endif /* TOEHOLD_INTERNAL_H */
