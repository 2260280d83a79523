/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Stands for FreeBSD's dev/cxgbe/offload.h, as of 12.1, 14.2 and 15.0: upper-layer drivers
 * (ULD), tid tables, the ranges of adapter memory, and the TOE tunables that the base driver
 * shows as sysctls. Our own declarations of the members a TOE driver uses.
 */
#ifndef __T4_OFFLOAD_H__
#define __T4_OFFLOAD_H__

#include <sys/param.h>
#include <sys/lock.h>
#include <sys/mutex.h>
#include <sys/queue.h>

struct adapter;
struct listen_ctx;

/* atids are 14 bits of a CPL; the upper 3 carry a cookie (CPL_COOKIE_TOM). */
#define MAX_ATIDS 2048U

/* An atid's owner, or the next free one. */
union aopen_entry {
	void *data;
	union aopen_entry *next;
};

/*
 * The ranges of tids, stids, atids. The base driver makes and frees the atid table;
 * stid_tab and tid_tab are made, locked and freed by the TOE driver.
 */
struct tid_info {
	u_int nstids;
	u_int stid_base;
	u_int natids;
	u_int ntids;
	u_int tid_base;

	struct mtx stid_lock;
	struct listen_ctx **stid_tab;
	u_int stids_in_use;

	struct mtx atid_lock;
	union aopen_entry *atid_tab;
	union aopen_entry *afree;
	u_int atids_in_use;

	void **tid_tab;
	u_int tids_in_use;
};

struct t4_range {
	u_int start;
	u_int size;
};

/* ddp: bytes of adapter memory for page pods. l2t: entries of the L2 table. */
struct t4_virt_res {
	struct t4_range ddp;
	struct t4_range l2t;
};

enum {
	ULD_TOM = 0,
	ULD_IWARP,
	ULD_ISCSI,
	ULD_MAX = ULD_ISCSI
};

#if __FreeBSD_version >= 1402000
/*
 * Inside a synchronized operation; may sleep. stop: the adapter does no DMA any more, runs no
 * CPL handler, and takes no work request; it is reset next. restart: it works again, with
 * nothing in it of before.
 */
struct uld_info {
	int (*uld_activate)(struct adapter *);
	int (*uld_deactivate)(struct adapter *);
	int (*uld_stop)(struct adapter *);
	int (*uld_restart)(struct adapter *);
};
#else
struct uld_info {
	SLIST_ENTRY(uld_info) link;
	int refcount;		/* adapters it is active on */
	int uld_id;
	int (*activate)(struct adapter *);
	int (*deactivate)(struct adapter *);
};
#endif

/*
 * The values behind dev.t5nex.N.toe.*; the base driver owns the nodes. Those marked t5sim
 * came with releases after 12.1.
 */
struct tom_tunables {
	int cong_algorithm;
	int sndbuf;
	int ddp;			/* also shown as rx_zcopy */
	int rx_coalesce;
	int tls;
#if __FreeBSD_version < 1402000
	int *tls_rx_ports;
	int num_tls_rx_ports;
#endif
	int tx_align;
	int tx_zcopy;
	int cop_managed_offloading;
	int autorcvbuf_inc;		/* t5sim */
	int update_hc_on_pmtu_change;	/* t5sim */
	int iso;			/* t5sim */
};

/*
 * 0; register: EEXIST if the id is taken; unregister: EBUSY while the ULD is active
 * on an adapter, EINVAL if it is not registered. May sleep.
 */
#if __FreeBSD_version >= 1402000
int t4_register_uld(struct uld_info *, int);
int t4_unregister_uld(struct uld_info *, int);
#else
int t4_register_uld(struct uld_info *);
int t4_unregister_uld(struct uld_info *);
#endif
/*
 * Inside a synchronized operation. activate: EAGAIN if no such ULD is registered;
 * deactivate: ENXIO. Else what the ULD's own method says. May sleep.
 */
int t4_activate_uld(struct adapter *, int);
int t4_deactivate_uld(struct adapter *, int);
int uld_active(struct adapter *, int);

#endif
