/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Stands for FreeBSD's dev/cxgbe/adapter.h, as of 12.1, 14.2 and 15.0: the adapter, its ports, virtual
 * interfaces and queues, and the services the base driver gives an upper-layer driver.
 * Our own declarations, for builds that have no FreeBSD source tree; names, types and
 * prototypes of what is here are FreeBSD's, other members are missing. Only t5sim.ko
 * provides this layout: a module built with it depends on `t5sim`, never on `t4nex`.
 *
 * Members that FreeBSD does not have say "t5sim".
 */
#ifndef __T4_ADAPTER_H__
#define __T4_ADAPTER_H__

#include <sys/types.h>
#include <sys/param.h>
#include <sys/systm.h>
#include <sys/kernel.h>
#include <sys/lock.h>
#include <sys/malloc.h>
#include <sys/mutex.h>
#include <sys/queue.h>
#include <sys/rwlock.h>
#include <sys/sx.h>
#include <sys/socket.h>
#include <sys/sysctl.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <net/if_var.h>

#include "osdep.h"
#include "offload.h"
#include "t4_ioctl.h"
#include "common/t4_msg.h"

MALLOC_DECLARE(M_CXGBE);

enum {
	MAX_NPORTS	= 4,
	MAX_NCHAN	= 4,
	NMTUS		= 16,
};

#define CHELSIO_T4	0x4
#define CHELSIO_T5	0x5
#define CHELSIO_T6	0x6
#if __FreeBSD_version >= 1500000
#define CHELSIO_T7	0x7
#endif

enum {
	EQ_ESIZE	= 64,	/* bytes of an egress descriptor */
	SGE_MAX_WR_LEN	= 512,	/* bytes of the largest work request */
	SGE_MAX_WR_NDESC = SGE_MAX_WR_LEN / EQ_ESIZE,
};

enum {
	/* begin_synchronized_op */
	HOLD_LOCK	= (1 << 0),
	SLEEP_OK	= (1 << 1),
	INTR_OK		= (1 << 2),
	/* end_synchronized_op */
	LOCK_HELD	= HOLD_LOCK,
};

enum {
	/* adapter.flags */
	FULL_INIT_DONE	= (1 << 0),
	CXGBE_BUSY	= (1 << 9),
	/* vi_info.flags */
#if __FreeBSD_version >= 1402000
	VI_DETACHING	= (1 << 0),
#else
	DOOMED		= (1 << 0),
#endif
	VI_INIT_DONE	= (1 << 1),
	/* adapter.debug_flags */
	DF_DISABLE_TCB_CACHE = (1 << 2),
};

#if __FreeBSD_version >= 1402000
	/* adapter.error_flags, changed by atomics */
enum {
	ADAP_STOPPED	= (1 << 0)
};

#define IS_DETACHING(vi)	((vi)->flags & VI_DETACHING)
#define SET_DETACHING(vi)	do {(vi)->flags |= VI_DETACHING;} while (0)
#define CLR_DETACHING(vi)	do {(vi)->flags &= ~VI_DETACHING;} while (0)
#else
#define IS_DOOMED(vi)	((vi)->flags & DOOMED)
#endif
#define IS_BUSY(sc)	((sc)->flags & CXGBE_BUSY)

struct port_info;
struct l2t_data;
struct clip_entry;

/* A virtual interface: one ifnet. Only the first of each port exists in t5sim. */
struct vi_info {
	device_t dev;		/* NULL in t5sim */
	struct port_info *pi;
#if __FreeBSD_version >= 1402000
	struct adapter *adapter;
#endif
	struct ifnet *ifp;

	unsigned long flags;
	int if_flags;

	uint16_t viid;
	uint16_t smt_idx;
	uint16_t vin;
	uint8_t vfvld;
	int16_t xact_addr_filt;	/* index of the exact MAC filter, -1: none */

	/* int, as sysctls show them */
	int ntxq;
	int first_txq;
	int nrxq;
	int first_rxq;
	int nofldtxq;
	int first_ofld_txq;
	int nofldrxq;
	int first_ofld_rxq;
	int ofld_tmr_idx;
	int ofld_pktc_idx;

	uint8_t hw_addr[ETHER_ADDR_LEN];
};

struct link_config {
	unsigned int speed;	/* Mb/s */
	bool link_ok;
};

struct port_info {
	device_t dev;		/* NULL in t5sim */
	struct adapter *adapter;

	struct vi_info *vi;
	int nvi;
	int up_vis;
	int uld_vis;

	struct mtx pi_lock;
	unsigned long flags;

#if __FreeBSD_version >= 1500000
	uint8_t hw_port;
#else
	uint8_t lport;
#endif
	uint8_t port_id;
	uint8_t tx_chan;
	uint8_t rx_e_chan_map;

	struct link_config link_cfg;
};

#define IS_MAIN_VI(vi)	((vi) == &((vi)->pi->vi[0]))

#define for_each_vi(pi_, iter, vi_) \
	for ((vi_) = (pi_)->vi, (iter) = 0; (iter) < (pi_)->nvi; \
	    ++(iter), ++(vi_))
#define for_each_port(sc_, iter) \
	for ((iter) = 0; (iter) < (sc_)->params.nports; ++(iter))

/* Who a reply with a cookie belongs to. */
enum {
	CPL_COOKIE_RESERVED = 0,
	CPL_COOKIE_FILTER,
	CPL_COOKIE_DDP0,
	CPL_COOKIE_DDP1,
	CPL_COOKIE_TOM,
	CPL_COOKIE_HASHFILTER,
	CPL_COOKIE_ETHOFLD,
#if __FreeBSD_version >= 1402000
	CPL_COOKIE_KERN_TLS,
#else
	CPL_COOKIE_AVAILABLE3,
#endif

	NUM_CPL_COOKIES = 8
};

struct sge_iq;
/*
 * Receives one CPL. Runs in a thread of the adapter, no lock held, inside a net epoch:
 * must not sleep. Owns the mbuf. Returns 0; the value is not used.
 */
typedef int (*cpl_handler_t)(struct sge_iq *, const struct rss_header *,
    struct mbuf *);

/* Ingress queue. */
struct sge_iq {
	struct adapter *adapter;
	uint16_t cntxt_id;
	uint16_t abs_id;	/* what CPLs and work requests call it */
};

enum {
	EQ_CTRL		= 1,
	EQ_ETH		= 2,
	EQ_OFLD		= 3,

#if __FreeBSD_version >= 1402000
	EQ_SW_ALLOCATED	= (1 << 0),
	EQ_HW_ALLOCATED	= (1 << 1),
#else
	EQ_TYPEMASK	= 0x3,	/* of sge_eq.flags */
	EQ_ALLOCATED	= (1 << 2),
#endif
	EQ_ENABLED	= (1 << 3),
};

/* Egress queue. */
struct sge_eq {
	unsigned int flags;
	unsigned int cntxt_id;
	unsigned int abs_id;
#if __FreeBSD_version >= 1402000
	uint8_t type;		/* EQ_CTRL, EQ_ETH or EQ_OFLD */
#endif
	struct mtx eq_lock;
	uint8_t tx_chan;
	uint8_t index;		/* t5sim: of the ctrlq or ofld_txq array */
};

struct sge_ofld_rxq {
	struct sge_iq iq;	/* first */
};

static inline struct sge_ofld_rxq *
iq_to_ofld_rxq(struct sge_iq *iq)
{

	return (__containerof(iq, struct sge_ofld_rxq, iq));
}

/* A work request on its way, allocated by alloc_wrqe. */
struct wrqe {
	STAILQ_ENTRY(wrqe) link;
	struct sge_wrq *wrq;
	int wr_len;		/* bytes */
	char wr[] __aligned(16);
};

/* The caller's ticket between start_wrq_wr and commit_wrq_wr. */
struct wrq_cookie {
	struct wrqe *wr;	/* t5sim */
};

/* A queue for whole work requests: control queues and, until 13, offload transmit queues. */
struct sge_wrq {
	struct sge_eq eq;	/* first */
	struct adapter *adapter;
	STAILQ_HEAD(, wrqe) wr_list; /* in order of start_wrq_wr; under eq_lock */
	uint64_t tx_wrs_direct;
	uint64_t tx_wrs_copied;
};

#if __FreeBSD_version >= 1402000
/* Offload transmit queue. */
struct sge_ofld_txq {
	struct sge_wrq wrq;	/* first */
	counter_u64_t tx_aio_jobs;
	counter_u64_t tx_aio_octets;
};
#endif

struct sge {
	int nofldrxq;
	int nofldtxq;
	struct sge_iq fwq;
	struct sge_wrq *ctrlq;		/* one for each port */
#if __FreeBSD_version >= 1402000
	struct sge_ofld_txq *ofld_txq;
#else
	struct sge_wrq *ofld_txq;
#endif
	struct sge_ofld_rxq *ofld_rxq;
};

#if __FreeBSD_version >= 1402000
enum fw_filter_vnic_mode {
	FW_VNIC_MODE_PF_VF = 0,
	FW_VNIC_MODE_OUTER_VLAN = 1,
	FW_VNIC_MODE_ENCAP_EN = 2
};

/* The modulation queue of a transmit channel. */
#define TX_MODQ(tx_chan) (tx_chan)
#endif

struct tp_params {
	unsigned int tre;
	unsigned int dack_re;
#if __FreeBSD_version >= 1402000
	int vnic_mode;		/* FW_VNIC_MODE_*: what vnic_shift's field is */
#else
	unsigned short tx_modq[MAX_NCHAN];
	uint32_t vlan_pri_map;
	uint32_t ingress_config;
#endif
	/* first bit of a field in a filter tuple, -1: not part of it */
	int8_t fcoe_shift;
	int8_t port_shift;
	int8_t vnic_shift;
	int8_t vlan_shift;
	int8_t tos_shift;
	int8_t protocol_shift;
	int8_t ethertype_shift;
	int8_t macmatch_shift;
	int8_t matchtype_shift;
	int8_t frag_shift;
};

struct vpd_params {
	unsigned int cclk;	/* kHz */
};

struct chip_params {
	uint8_t nchan;
	uint8_t cng_ch_bits_log;
	uint8_t nsched_cls;
};

struct adapter_params {
	struct tp_params tp;
	struct vpd_params vpd;
	unsigned short mtus[NMTUS];
#if __FreeBSD_version >= 1402000
	unsigned char nsched_cls;
#endif
	uint8_t nports;
	unsigned int chipid:4;
	unsigned int rev:4;
	unsigned int offload:1;
	unsigned int ofldq_wr_cred;	/* 16 B units for each connection */
	bool ulptx_memwrite_dsgl;	/* page pods may be written from host memory */
	bool viid_smt_extn_support;
};

struct adapter {
	SLIST_ENTRY(adapter) link;
	device_t dev;		/* NULL in t5sim: never give it to device_*() */
	char nameunit[16];	/* t5sim: what device_get_nameunit would say, "t5nex0" */

	unsigned int pf;
	unsigned int mbox;

	struct sge sge;
	struct port_info *port[MAX_NPORTS];

	void *tom_softc;	/* the TOE driver's, set by its activate method */
	struct tom_tunables tt;
	struct t4_offload_policy *policy;
	struct rwlock policy_lock;

	struct l2t_data *l2t;
	struct tid_info tids;

	int offload_map;	/* bit n: IFCAP_TOE is on at port n */
	int active_ulds;
	int flags;
	int debug_flags;
#if __FreeBSD_version >= 1402000
	int error_flags;
	int incarnation;	/* how often it was restarted */
#endif

	struct adapter_params params;
	const struct chip_params *chip_params;
	struct t4_virt_res vres;

	struct mtx sc_lock;
	char lockname[16];

	const char *last_op;
	const void *last_op_thr;
};

#define ADAPTER_LOCK(sc)	mtx_lock(&(sc)->sc_lock)
#define ADAPTER_UNLOCK(sc)	mtx_unlock(&(sc)->sc_lock)
#define ADAPTER_LOCK_ASSERT_OWNED(sc)	mtx_assert(&(sc)->sc_lock, MA_OWNED)
#define EQ_LOCK(eq)		mtx_lock(&(eq)->eq_lock)
#define EQ_UNLOCK(eq)		mtx_unlock(&(eq)->eq_lock)
#define TXQ_LOCK(txq)		EQ_LOCK(&(txq)->eq)
#define TXQ_UNLOCK(txq)		EQ_UNLOCK(&(txq)->eq)

/* Call the function for every adapter, under the lock of the list of adapters. */
void t4_iterate(void (*)(struct adapter *, void *), void *);
/*
 * Serialise with configuration changes of the adapter. 0, EBUSY (not SLEEP_OK), EINTR
 * (INTR_OK) or ENXIO (the VI goes away). With HOLD_LOCK it returns with sc_lock held;
 * end_synchronized_op(LOCK_HELD) releases it.
 */
int begin_synchronized_op(struct adapter *, struct vi_info *, int, char *);
void end_synchronized_op(struct adapter *, int);

#if __FreeBSD_version < 1402000
/* The table is the TOE driver's to make; later it is there. */
int alloc_atid_tab(struct tid_info *, int);
void free_atid_tab(struct tid_info *);
#endif
/* An atid, -1 if none is left or the adapter is stopped. */
int alloc_atid(struct adapter *, void *);
void *lookup_atid(struct adapter *, int);
void free_atid(struct adapter *, int);
/* Give an unused tid back to the adapter (CPL_TID_RELEASE). Never sleeps. */
void release_tid(struct adapter *, int, struct sge_wrq *);

/* NULL takes the handler away. One handler for an opcode (and cookie) at a time. */
void t4_register_cpl_handler(int, cpl_handler_t);
void t4_register_shared_cpl_handler(int, cpl_handler_t, int);

/*
 * Room for a work request of so many 16 B units, NULL if there is none; it takes its
 * place in the queue now and leaves when committed. Never sleep.
 */
void *start_wrq_wr(struct sge_wrq *, int, struct wrq_cookie *);
void commit_wrq_wr(struct sge_wrq *, void *, struct wrq_cookie *);
/* Queue and, with it, free the work request. The queue's lock is held. */
void t4_wrq_tx_locked(struct adapter *, struct sge_wrq *, struct wrqe *);

/* Inline functions in FreeBSD. */
uint32_t t4_read_reg(struct adapter *, uint32_t);
void t4_write_reg(struct adapter *, uint32_t, uint32_t);

/* NULL if there is no memory. */
static inline struct wrqe *
alloc_wrqe(int wr_len, struct sge_wrq *wrq)
{
	struct wrqe *wr;

	wr = malloc(offsetof(struct wrqe, wr) + wr_len, M_CXGBE, M_NOWAIT);
	if (wr != NULL) {
		wr->wrq = wrq;
		wr->wr_len = wr_len;
	}
	return (wr);
}

static inline void *
wrtod(struct wrqe *wr)
{

	return (wr->wr);
}

static inline void
free_wrqe(struct wrqe *wr)
{

	free(wr, M_CXGBE);
}

static inline void
t4_wrq_tx(struct adapter *sc, struct wrqe *wr)
{
	struct sge_wrq *wrq;

	wrq = wr->wrq;
	TXQ_LOCK(wrq);
	t4_wrq_tx_locked(sc, wrq, wr);
	TXQ_UNLOCK(wrq);
}

#include "common/common.h"

#endif
