/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * The contract between toehold's C shim and its Rust half.
 *
 * Rust knows no kernel structure: it sees the handles declared here.  th_*
 * functions are C, called by Rust; toehold_* functions are Rust, called by C.
 * Above each prototype stand, where they matter: the context it may be called
 * in, the locks that are held, whether it may sleep, and who owns what.
 *
 * "INP" below is the write lock of the connection's inpcb.  Lock order:
 * INP -> toehold mutexes -> socket buffer -> aio.
 */
#ifndef TOEHOLD_H
#define TOEHOLD_H

#ifdef TOEHOLD_BINDGEN
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#else
#include <sys/types.h>
#include <sys/stddef.h>
#endif

struct adapter;
struct inpcb;
struct kaiocb;
struct mbuf;
struct socket;
struct th_l2e;
struct th_mtx;
struct th_task;
struct th_tom;
struct vnet;

/* ---- Adapter ---------------------------------------------------------- */

#define TH_CHIP_T4	4
#define TH_CHIP_T5	5
#define TH_CHIP_T6	6
#define TH_NMTUS	16
#define TH_WR_MAX	512	/* bytes of one work request */
#define TH_MAX_SETS	64	/* page-set slots of one connection */

/* What the adapter is; constant while the module is active on it. */
struct th_adapter_info {
	uint32_t chip;			/* TH_CHIP_* */
	uint32_t nports;
	uint32_t tid_base;		/* tids are ntids from here on */
	uint32_t ntids;
	uint32_t nstids;
	uint32_t stid_base;
	uint32_t natids;
	uint32_t wr_credits;		/* tx credits of a connection, 16 B */
	uint32_t ddp_start;		/* page-pod region in adapter memory */
	uint32_t ddp_size;		/* bytes */
	uint32_t pf;
	int8_t vlan_shift, port_shift;	/* filter tuple; -1: no such field */
	int8_t protocol_shift, vnic_shift;
	uint8_t page_shift[4];		/* DDP page sizes, ascending */
	uint16_t mtus[TH_NMTUS];
};

/* The sysctls dev.<nexus>.N.toe.*, as they stand now. */
struct th_tunables {
	int32_t cong_algorithm;
	int32_t sndbuf;
	int32_t ddp;
	int32_t rx_coalesce;
	int32_t tx_zcopy;
	int32_t cop_managed;
	int32_t ddp_cache;		/* page sets kept per connection */
	int32_t tx_zcopy_min;		/* bytes; shorter writes are copied */
	int32_t answer_timeout;		/* seconds; at least 1 */
};

/* One of the adapter's offload-capable interfaces, and the queues picked. */
struct th_vi {
	void *ifp;
	uint32_t txq;			/* index in sge.ofld_txq */
	uint32_t vnic;			/* VNIC field of a filter tuple */
	uint16_t rxq_abs;		/* abs_id of the receive queue */
	uint8_t port;			/* port_id */
	uint8_t hw_port;		/* port in a filter tuple */
	uint8_t tx_chan;
	uint8_t smac_sel;		/* SMAC_SEL of opt0 */
	uint8_t tx_modq;		/* modulation queue of tx_chan */
	bool tx_align;			/* cut payload in whole segments */
};

/* An open work request: fill `wr' and commit it, in one thread, no sleep. */
struct th_wr {
	uint8_t *wr;			/* 16 * len16 bytes */
	void *wrq;
	uint64_t cookie[4];		/* struct wrq_cookie */
};

#define TH_Q_CTRL	0		/* index: of sge.ctrlq */
#define TH_Q_OFLD	1		/* index: th_vi.txq */
/* The control queue of what the shim itself sends, the same as Rust's. */
#define TH_CTRLQ	0

/*
 * Any context.  ENOMEM: no descriptors and no memory; nothing to commit.
 * Requests of a queue are executed in the order in which they are started,
 * and the doorbell is rung when none is open: who starts the next before
 * committing the last rings it once for all.  An open request stays where it
 * is, for the queue knows its cookie.
 */
int th_wr_start(struct th_tom *, uint32_t q, uint32_t idx, uint32_t len16,
    struct th_wr *);
void th_wr_commit(struct th_wr *);

/* Any context. */
void th_tunables(struct th_tom *, struct th_tunables *);
/* Classes of connections: who opened them. */
#define TH_CLASS_ACTIVE		0
#define TH_CLASS_PASSIVE	1
#define TH_NCLASSES		2
/* For no connection, `class' is TH_NCLASSES. */
void th_count(struct th_tom *, uint32_t class, uint32_t counter, uint64_t n);
/*
 * Gauges shown by sysctl: pages wired, page pods in use, connections; user
 * pages and connections kept only because the adapter does not answer.
 */
#define TH_GAUGE_WIRED	0
#define TH_GAUGE_PPODS	1
#define TH_GAUGE_TOEPCB	2
#define TH_GAUGE_ORPHANED	3
#define TH_GAUGE_ORPHANS	4
#define TH_NGAUGES	5
void th_gauge(struct th_tom *, uint32_t gauge, int64_t delta);
/* Log one line, prefixed with the adapter's name; rate limited.  Any. */
void th_log(struct th_tom *, const char *msg, size_t len, uint64_t a,
    uint64_t b);

/* Number of event counters; names and descriptions stand in stats.c. */
#define TH_NCOUNTERS	30
/* The first so many are about connections, the others come before there is one. */
#define TH_NCONN_COUNTERS	28

/*
 * C: module load on one adapter (a synchronized operation: may sleep).  The
 * Rust half builds its tables; its pointer goes to *rs.  0 or an errno.
 */
int toehold_activate(struct th_tom *, const struct th_adapter_info *,
    void **rs);
/* Connections that live now.  Any context. */
uint32_t toehold_connections(void *rs);
/* Ask the adapter to close every listener.  May sleep. */
void toehold_stop_listeners(void *rs);
/* 0: nothing is left and nothing new can come; else EBUSY. */
int toehold_deactivate(void *rs);
/* True while listeners or half-open entries are on their way out. */
bool toehold_closing(void *rs);
/*
 * The adapter has stopped: it does no DMA, no toehold_cpl() comes or runs, and it
 * will be reset.  Ends all that it was about: connections and their jobs with
 * ECONNABORTED, opens by giving them to the kernel; listeners wait.  Net epoch.
 */
void toehold_stop(void *rs);
/* It works again: listeners are told to it.  Net epoch. */
void toehold_restart(void *rs);
/* The adapter is as it was described to toehold_activate().  Any. */
bool toehold_same_adapter(void *rs, const struct th_adapter_info *);
/* Give the tables back; after a toehold_deactivate() that said 0. */
void toehold_free(void *rs);
/* A shortage may be over, something is to be torn down.  Task, net epoch. */
void toehold_retry(void *rs);
/* Memory is short: the next toehold_retry() releases idle page sets.  Any. */
void toehold_lowmem(void *rs);
/*
 * The budget of wired pages is used up, or, if `space' is not 0, that of the
 * process with this address space (see th_job_space()): a toehold_retry() soon
 * releases its idle page sets, or all.  INP or less, and a mutex of the shim's.
 */
void toehold_pressure(void *rs, uint64_t space);
/*
 * The process with this address space (see th_job_space()) exits or execs and
 * has no job any more: release its page sets.  That process, no lock held.
 */
void toehold_forget(void *rs, uint64_t space);
/* Page pods: all there are, and the longest run of free ones.  Any. */
void toehold_ppods(void *rs, uint32_t *total, uint32_t *largest);

/*
 * Have toehold_retry() called in `ms' milliseconds, or before if that was asked
 * for: it is called once for all that asked.  Any context without spin locks.
 */
void th_retry_schedule(struct th_tom *, uint32_t ms);
uint64_t th_uptime_ms(void);			/* any context */

/*
 * A CPL for the connection or listener it names.  `cpl' starts at the opcode
 * byte, len bytes.  `m' (may be NULL) is owned by the callee; for RX_DATA and
 * PASS_ACCEPT_REQ it still begins with the CPL.  Queue context: no sleep, in
 * the net epoch, no lock held.
 */
void toehold_cpl(void *rs, const uint8_t *cpl, size_t len, struct mbuf *m);

/* ---- Memory, locks, panic --------------------------------------------- */

#define TH_WAITOK	0x01		/* may sleep: never with a lock held */
/* Zeroed.  NULL only without TH_WAITOK. */
void *th_malloc(size_t, uint32_t flags);
void th_free(void *);
struct th_mtx *th_mtx_alloc(const char *name);	/* may sleep */
void th_mtx_free(struct th_mtx *);
void th_mtx_lock(struct th_mtx *);
void th_mtx_unlock(struct th_mtx *);
void th_panic(const char *msg, size_t len) __attribute__((__noreturn__));

/* ---- Connections: inpcb, tcpcb, socket -------------------------------- */

struct vnet *th_vnet_enter(struct vnet *);	/* returns the one before */
void th_vnet_leave(struct vnet *before);
void th_inp_wlock(struct inpcb *);
void th_inp_wunlock(struct inpcb *);
void th_inp_ref(struct inpcb *);		/* in_pcbref; INP */
/* Drop a reference; INP held.  True: the inp is gone and the lock with it. */
bool th_inp_rele(struct inpcb *);
bool th_inp_dropped(struct inpcb *);		/* INP_DROPPED; INP */
struct socket *th_inp_socket(struct inpcb *);	/* INP; NULL once detached */
struct vnet *th_inp_vnet(struct inpcb *);

/* IPv4 4-tuple and the like, in network byte order. */
struct th_tuple {
	uint32_t laddr, faddr;
	uint16_t lport, fport;
};
void th_inp_tuple(struct inpcb *, struct th_tuple *);

/*
 * INP.  Hook the socket up to the adapter: SB_NOCOALESCE, TF_TOE, t_toe,
 * tod, toehold's protosw.  `toep' is counted by the caller.
 */
void th_offload_socket(struct th_tom *, struct inpcb *, void *toep);
/* INP.  Undo all of it (t_toe, TF_TOE, protosw). */
void th_unoffload_socket(struct inpcb *);
/* INP.  t_toe of an offloaded connection of ours, else NULL. */
void *th_inp_toep(struct inpcb *);

struct th_options {			/* terms as in the tcpcb and socket */
	uint64_t sb_max;
	uint32_t rcv_space;		/* sbspace(so_rcv), or a listener's hiwat */
	uint32_t snd_hiwat;
	uint32_t mss;			/* tcp_mssopt(); 0 for a listener */
	uint32_t iss;
	char cc_name[16];		/* congestion control, not terminated */
	uint32_t cc_len;
	bool snd_autosize;
	bool nodelay;
	bool keepalive;
	bool tstamp;
	bool wscale;
	bool sack;
	bool ecn;
};
/* INP (or the listener's INP).  What the socket and the sysctls ask for. */
void th_inp_options(struct inpcb *, struct th_options *);
/* INP, SYN_SENT.  The window scale that our SYN offers. */
void th_inp_set_rcv_scale(struct inpcb *, uint8_t);

struct th_established {
	uint32_t iss, irs;
	uint32_t snd_wnd;
	uint32_t rcv_wnd;		/* window given to the adapter, bytes */
	uint32_t mss;
	uint8_t snd_wscale, rcv_wscale;
	bool wscale_ok, tstamp_ok, sack_ok;
};
/* INP.  The tcpcb becomes ESTABLISHED; soisconnected().  In the net epoch. */
void th_make_established(struct inpcb *, const struct th_established *);

/* INP, net epoch.  Report a failed active open: toe_connect_failed(). */
void th_connect_failed(struct th_tom *, struct inpcb *, int error);

/* Sequence state shown in the tcpcb; INP. */
void th_tcp_publish(struct inpcb *, uint32_t rcv_nxt, uint32_t rcv_wnd,
    uint32_t snd_una, uint32_t snd_nxt);
uint32_t th_tcp_state(struct inpcb *);		/* TCPS_*; INP */
void th_tcp_set_state(struct inpcb *, uint32_t);
bool th_tcp_more_to_come(struct inpcb *);	/* TF_MORETOCOME; INP */
/*
 * INP held on entry and on return, but let go of in between; net epoch.
 * Each may call toehold_pcb_detach().  The caller holds an inp reference.
 */
void th_tcp_twstart(struct inpcb *);
void th_tcp_close(struct inpcb *);
void th_tcp_drop(struct inpcb *, int error);

#define TH_SB_RCV	0
#define TH_SB_SND	1
/* What so_rcv may hold at least, whatever SO_RCVBUF says. */
#define TH_MIN_RCV	4096
struct th_sockbuf {			/* a socket buffer at one moment */
	uint32_t used;
	int32_t space;
	uint32_t avail;
	uint32_t hiwat;
	uint32_t lowat;
	bool shut;			/* CANTRCVMORE or CANTSENDMORE */
	bool aio;			/* the generic path has jobs for it */
	bool tls;			/* it is a TLS session's */
};
/* INP. */
void th_sb(struct socket *, uint32_t which, struct th_sockbuf *);
void th_rcv_append(struct socket *, struct mbuf *);	/* owns the mbuf */
/* A step of 16 KB, if so_rcv sizes itself (SB_AUTOSIZE) and may have more. */
void th_rcv_grow(struct socket *);
void th_rcv_cant_more(struct socket *);
/* Reads in the generic path's queue, or being served by it. */
bool th_rcv_generic(struct socket *);
bool th_rcv_io_trylock(struct socket *);
void th_rcv_io_unlock(struct socket *);
bool th_snd_autosize(struct socket *);
void th_snd_drop(struct socket *, uint32_t n);
void th_snd_flush(struct socket *);
/* All of so_snd, the caller's now; NULL if there is nothing. */
struct mbuf *th_snd_take(struct socket *);
void th_snd_append(struct socket *, struct mbuf *);	/* owns the mbuf */
bool th_snd_io_trylock(struct socket *);
void th_snd_io_unlock(struct socket *);
int th_so_take_error(struct socket *);		/* 0: none */
bool th_so_nonblocking(struct socket *);
bool th_so_no_ddp(struct socket *);		/* SO_NO_DDP */
void th_so_disconnected(struct socket *);

/*
 * Transmit mbufs.  `sent' counts the bytes at the front of so_snd that the
 * adapter has and the peer has not acknowledged.  th_snd_next() gives the mbuf
 * that holds the first byte behind those and its offset there; NULL if there
 * is none.  INP held, and so no mbuf of so_snd goes away.
 */
struct mbuf *th_snd_next(struct socket *, uint32_t sent, uint32_t *off);
/* `n' more bytes, behind the `sent' ones, went to the adapter. */
void th_snd_advance(struct socket *, uint32_t sent, uint32_t n);
struct mbuf *th_mbuf_next(struct mbuf *);
#define TH_M_NOTREADY	0x01		/* data not there yet (sendfile) */
#define TH_M_PAGES	0x02		/* pages, no address: th_mbuf_page() */
#define TH_M_AIOTX	0x04		/* pages of an aio_write */
struct th_mbuf {
	uint64_t data;			/* kernel address unless TH_M_PAGES */
	uint32_t len;
	uint32_t flags;
};
void th_mbuf(struct mbuf *, struct th_mbuf *);
/*
 * The physically contiguous run that holds byte `off' of the mbuf: its
 * physical address and how many bytes of the mbuf follow in the same run.
 */
uint64_t th_mbuf_run(struct mbuf *, uint32_t off, uint32_t *len);
void th_mbuf_copy(struct mbuf *, uint32_t off, uint32_t len, uint8_t *dst);
uint32_t th_mbuf_len(struct mbuf *);		/* of the whole chain */
void th_mbuf_adj(struct mbuf *, uint32_t n);	/* trim the front */
void th_mbuf_free(struct mbuf *);
void th_mbuf_cat(struct mbuf *head, struct mbuf *tail);	/* owns tail */

/* ---- L2 ---------------------------------------------------------------- */

/*
 * INP may be held.  An entry for the next hop towards `addr' (network order)
 * through the interface; resolution is started.  NULL: none to be had.
 */
struct th_l2e *th_l2_get(struct th_tom *, void *ifp, uint32_t addr);
uint32_t th_l2_idx(struct th_l2e *);
void th_l2_rele(struct th_tom *, struct th_l2e *);
/*
 * Send a work request (bytes are copied) on a control queue once the entry is
 * resolved.  0 or an errno.  If resolution fails later, toehold_l2_failed() gets the `cookie'.
 */
int th_l2_send(struct th_tom *, struct th_l2e *, uint32_t ctrlq,
    const uint8_t *wr, uint32_t len, uint64_t cookie);
/* Task, net epoch: the work request with this cookie was not sent. */
void toehold_l2_failed(void *rs, uint64_t cookie);

/* ---- Active open ------------------------------------------------------ */

/*
 * tod_connect.  INP, SYN_SENT.  0: the open is under way; EAGAIN and the like:
 * the host stack connects by itself.
 */
int toehold_connect(void *rs, struct inpcb *, const struct th_vi *,
    uint32_t nexthop);

/* An atid of the adapter; -1: all are in use.  Whose it is, Rust knows. */
int th_atid_alloc(struct th_tom *);
void th_atid_free(struct th_tom *, int atid);

/* ---- Passive open ----------------------------------------------------- */

/* tod_listen_start/stop.  INP of the listener. */
int toehold_listen_start(void *rs, struct inpcb *, const struct th_vi *);
int toehold_listen_stop(void *rs, struct inpcb *);

/* A SYN that matched a listener, in host byte order where not said else. */
struct th_syn {
	uint32_t port;			/* adapter port it came in on */
	uint32_t mac_idx;
	uint16_t vlan;			/* 0xfff: none */
	uint16_t mss;			/* 0: option absent */
	uint8_t wscale;			/* 0xff: option absent */
	bool tstamp, sack;
	uint32_t l3_off;		/* in `m', from its start */
	uint32_t tcp_off;
};
/*
 * Net epoch.  Is the SYN good to be offloaded: interface, vnet, address,
 * capability, 4-tuple, next hop.  Fills `vi' and *l2e (referenced) if 0;
 * ENOENT: drop it; EOPNOTSUPP: the host stack may have it.
 */
int th_syn_check(struct th_tom *, const struct th_syn *, struct mbuf *m,
    struct vnet *, struct th_vi *vi, struct th_l2e **l2e);
/*
 * Listener's INP held on entry, released on return; net epoch.  Calls
 * toehold_synqe_added() and, if the kernel answers the SYN,
 * toehold_synqe_respond().
 */
void th_syncache_add(struct th_tom *, const struct th_syn *, struct mbuf *m,
    struct inpcb *listener, void *synqe);
/*
 * Net epoch, listener's INP held.  The handshake is done: make the socket.
 * The kernel calls toehold_synqe_offload() on the way.  Returns the new inp,
 * write locked, or NULL.
 */
struct inpcb *th_syncache_expand(struct th_tom *, struct mbuf *syn,
    uint32_t l3_off, uint32_t tcp_off, uint32_t iss, uint32_t irs,
    bool tstamp, uint32_t ts, struct inpcb *listener, void *synqe);
/*
 * Net epoch, curvnet set.  If the syncache still waits for the answer to this
 * SYN of sequence number `irs', it stops: toehold_synqe_removed().
 */
void th_syncache_forget(struct mbuf *syn, uint32_t l3_off, uint32_t tcp_off,
    uint32_t irs);
/* Hand the SYN (without its CPL) to the host stack. */
void th_syn_to_host(struct th_tom *, uint32_t port, struct mbuf *m);

/* From the syncache, whatever locks it holds. */
void toehold_synqe_added(void *synqe);
void toehold_synqe_removed(void *synqe);
/* 0, or ECONNABORTED: the adapter has no such connection any more. */
int toehold_synqe_respond(void *synqe, uint32_t iss, uint32_t irs,
    uint32_t ts);
/* New connection's INP held, net epoch. */
void toehold_synqe_offload(void *synqe, struct inpcb *);

/* ---- Kernel's calls on a connection; INP held -------------------------- */

void toehold_rcvd(void *toep, struct inpcb *);		/* tod_rcvd */
int toehold_output(void *toep, struct inpcb *);		/* tod_output */
int toehold_send_fin(void *toep, struct inpcb *);	/* tod_send_fin */
int toehold_send_rst(void *toep, struct inpcb *);	/* tod_send_rst */
void toehold_pcb_detach(void *toep, struct inpcb *);	/* tod_pcb_detach */
void toehold_tls(void *toep, struct inpcb *);	/* a TLS session began */
void toehold_nodelay(void *toep, struct inpcb *, bool on);

/* ---- AIO --------------------------------------------------------------- */

#define TH_AIO_READ	1
#define TH_AIO_WRITE	2
#define TH_AIO_WRITEV	3
/*
 * pr_aio_queue of an offloaded socket.  Process context, no locks, may sleep.
 * 0: the job is ours.  EOPNOTSUPP: the generic path takes it.
 */
int toehold_aio_queue(struct socket *, struct kaiocb *, uint32_t op);
/* Cancel function of our jobs.  INP held; `toep' as t_toe says. */
void toehold_aio_cancel(void *toep, struct inpcb *, struct kaiocb *);
/*
 * An mbuf that refers to the page set `slot' of `owner' is made, or is gone;
 * each is a user of the set and counts as a reference of `owner'.  Any
 * context.
 */
void toehold_aiotx_hold(void *owner, uint32_t slot);
void toehold_aiotx_rele(void *owner, uint32_t slot);

uint64_t th_job_addr(struct kaiocb *);		/* nothing if vectored */
size_t th_job_len(struct kaiocb *);
bool th_job_vectored(struct kaiocb *);
/*
 * Address of byte `off' of the buffer; how many of its bytes lie there in a
 * row goes to *len, 0 beyond its end.
 */
uint64_t th_job_run(struct kaiocb *, size_t off, size_t *len);
/* Words of the job that are ours: link, progress, slot and mark. */
struct kaiocb **th_job_next(struct kaiocb *);
int64_t *th_job_done(struct kaiocb *);
uintptr_t *th_job_word(struct kaiocb *);
uint32_t *th_job_lent(struct kaiocb *);
/* The inp of the job's socket, which the job keeps alive.  No lock. */
struct inpcb *th_job_inp(struct kaiocb *);
bool th_job_arm_cancel(struct kaiocb *);
void th_job_complete(struct kaiocb *, int64_t status, int error);
void th_job_sigpipe(struct kaiocb *, struct socket *);
/* The process exits or execs: its address space is about to go. */
bool th_job_leaving(struct kaiocb *);
/*
 * Process or worker context, no locks, sleeps.  Copy bytes [off, off + len)
 * of the job's buffer; of a vectored job the next `len', whatever `off' is.
 * 0 or EFAULT.
 */
int th_job_copy(struct kaiocb *, uint64_t off, uint32_t len,
    struct mbuf **);

/*
 * The worker of a connection: runs toehold_worker() in a kernel process that
 * may sleep, with a reference of `toep' that the caller gives.
 */
struct th_task *th_task_alloc(void *toep);		/* no sleep; NULL */
void th_task_free(struct th_task *);			/* not queued */
/* True: it was not queued before (the reference is taken over). */
bool th_task_enqueue(struct th_task *);
void toehold_worker(void *toep);

/* ---- User pages -------------------------------------------------------- */

struct th_pages {
	uint32_t count;
	uint32_t flags;
#define TH_PAGES_FILE	0x01		/* some page is a file's */
	const uint64_t *pa;		/* physical address of each page */
};
/*
 * Process or worker context, no locks, sleeps.  Fault in and wire the pages
 * under [addr, addr + len) of the job's address space.  0, EFAULT, ENOMEM.
 * `charged': th_pages_budget() was asked and said yes; the pages take the
 * charge over, or it ends with the error.
 */
int th_pages_hold(struct th_tom *, struct kaiocb *, uint64_t addr,
    uint32_t len, bool write, bool charged, struct th_pages **);
/* Any context that holds no spin lock: unwire. */
void th_pages_rele(struct th_tom *, struct th_pages *);
void th_pages_dirty(struct th_pages *);
/* Any context.  None of the first `n' pages has been truncated away since. */
bool th_pages_valid(struct th_pages *, uint32_t n);
/*
 * Any context that holds no spin lock and no pmap; no sleep, no fault.  The
 * process has each page mapped where it was held, at this moment.
 */
bool th_pages_shown(struct th_pages *);
/* Address space and map generation of the job's process, for cache keys. */
void th_job_space(struct kaiocb *, uint64_t *space, uint32_t *generation);
/*
 * INP.  May `n' more pages be wired, beside what is wired through all adapters
 * and what the job's process has?  If so they are charged, and th_pages_hold()
 * must follow; else toehold_pressure() was called for whom it may concern.
 */
bool th_pages_budget(struct th_tom *, struct kaiocb *, uint32_t n);
/*
 * INP.  Move up to `max' bytes from so_rcv to byte `off' of the pages;
 * returns the number moved.
 */
uint32_t th_rcv_copy(struct socket *, struct th_pages *, uint32_t off,
    uint32_t max);
/*
 * INP.  Append a copy of bytes [off, off + len) of the pages to so_rcv and
 * wake readers.  0 or ENOBUFS.
 */
int th_rcv_append_pages(struct socket *, struct th_pages *, uint32_t off,
    uint32_t len);
/* Copy bytes; offsets from the start of each first page. */
void th_pages_copy(struct th_pages *, uint32_t off, struct th_pages *to,
    uint32_t at, uint32_t len);
/* memmove() within the pages; offsets from the start of the first. */
void th_pages_move(struct th_pages *, uint32_t from, uint32_t to,
    uint32_t len);
/*
 * INP.  Append bytes [off, off + len) of the page set to so_snd as mbufs,
 * for each of which toehold_aiotx_hold() is called; a set has one owner and
 * slot for ever.  `off' counts from the start of the first page.  0 or
 * ENOBUFS.
 */
int th_snd_append_pages(struct socket *, struct th_pages *, void *owner,
    uint32_t slot, uint32_t off, uint32_t len);

#endif /* TOEHOLD_H */
