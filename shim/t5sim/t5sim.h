/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * The contract between t5sim.ko's C half and its Rust half. C plays if_cxgbe: queues,
 * tables, interfaces, sysctls. Rust holds the card itself.
 *
 * t5sim_* functions are Rust, called by C; ts_* functions are C, called by Rust. C
 * serialises all calls for one card with an sx lock (the card lock), except the
 * functions that take no card. All t5sim_* functions may sleep for memory and must be
 * called with no mutex held and outside a net epoch, unless they say otherwise.
 */
#ifndef T5SIM_H
#define T5SIM_H

#ifdef TOEHOLD_BINDGEN
#include <stddef.h>
#include <stdint.h>
#else
#include <sys/types.h>
#include <sys/stddef.h>
#endif

struct t5sim_card;
struct ts_sink;

#define T5SIM_NPORTS	2
#define T5SIM_NMTUS	16
#define T5SIM_NEVER	UINT64_MAX

/* A card's fixed properties; what if_cxgbe would learn from hardware and firmware. */
struct t5sim_info {
	uint32_t chip;			/* 4, 5, 6 */
	uint32_t ntids;			/* tids are 0 .. ntids - 1 */
	uint32_t natids;
	uint32_t nstids;
	uint32_t ddp_start;		/* byte address in adapter memory */
	uint32_t ddp_size;		/* bytes, 64 for each page pod */
	uint32_t tx_credits;		/* of a connection, 16 B units */
	uint32_t line_rate;		/* Mb/s */
	uint8_t page_shift[4];		/* DDP page sizes, ascending */
	uint16_t mtus[T5SIM_NMTUS];
	uint8_t macs[T5SIM_NPORTS][6];
};

/* Queues of t5sim_card_submit. */
#define T5SIM_Q_CTRL	0		/* index: port */
#define T5SIM_Q_OFLD	1		/* index: in sge.ofld_txq */

/*
 * A card with default properties, NULL if that fails. `now' everywhere is the uptime in
 * ns; it never goes back.
 */
struct t5sim_card *t5sim_card_new(void);
void t5sim_card_free(struct t5sim_card *);
void t5sim_card_info(const struct t5sim_card *, struct t5sim_info *);
/*
 * Hand over what a driver would copy into an egress queue: work requests, each at the start
 * of a descriptor, the last as long as its contents. The bytes are copied. 0, or EINVAL and
 * a counter for the first that is refused.
 */
int t5sim_card_submit(struct t5sim_card *, uint64_t now, uint32_t q,
    uint32_t idx, const uint8_t *wr, size_t len);
/* Run all that is due. Calls ts_cpl, ts_dma_read, ts_dma_write. */
void t5sim_card_advance(struct t5sim_card *, uint64_t now, struct ts_sink *);
/* When advance has something to do again, T5SIM_NEVER if not. */
uint64_t t5sim_card_next(const struct t5sim_card *);
/*
 * Something goes wrong now. ENOENT: no such connection, or not in a state where that can
 * happen to it.
 */
#define T5SIM_FAULT_RESET	0	/* arg: a tid; its peer resets it */
#define T5SIM_FAULT_DDP_OFF	1	/* arg: a tid; it falls out of DDP */
#define T5SIM_FAULT_STALE_TAG0	2	/* arg: a tid; the tag of its DDP buffer 0 */
#define T5SIM_FAULT_STALE_TAG1	3	/*   or 1 is spoilt */
#define T5SIM_FAULT_DROP	4	/* arg: lose that many data segments */
#define T5SIM_FAULT_FIND	5	/* lost answers come after all */
int t5sim_card_fault(struct t5sim_card *, uint64_t now, uint32_t fault,
    uint32_t arg);
/* As when it was made, but for knobs and statistics: nothing of before is left in it. */
void t5sim_card_reset(struct t5sim_card *, uint64_t now);
/* The card's own invariants: 0, or EIO and why in buf, a string. */
int t5sim_card_check(const struct t5sim_card *, char *buf, size_t len);
/*
 * A connection's TCB as it lies in card memory: units of 16 bytes from the lowest word up,
 * words in a unit from the highest down, big-endian. Zeros for a tid that has none. Takes
 * no memory, so a mutex may be held besides the card lock.
 */
#define T5SIM_TCB_SIZE	128
void t5sim_card_tcb(const struct t5sim_card *, uint32_t tid,
    uint8_t tcb[T5SIM_TCB_SIZE]);
/* One line for connection number `n', a string; ENOENT past the last. */
int t5sim_card_conn(const struct t5sim_card *, uint32_t n, char *buf, size_t len);

/*
 * Knobs and statistics, each a named unsigned number. The names are strings that live
 * as long as the module.
 */
uint32_t t5sim_nknobs(void);
const char *t5sim_knob_name(uint32_t);
const char *t5sim_knob_descr(uint32_t);
uint64_t t5sim_knob_get(const struct t5sim_card *, uint32_t);
/* EINVAL: out of range. EBUSY: the knob needs a card with no connection. */
int t5sim_knob_set(struct t5sim_card *, uint32_t, uint64_t);

uint32_t t5sim_nstats(void);
const char *t5sim_stat_name(uint32_t);
const char *t5sim_stat_descr(uint32_t);
uint64_t t5sim_stat_get(const struct t5sim_card *, uint32_t);

/*
 * The key that undoes AES with key `enc' of so many bits, as the card takes it: the last
 * words of the key schedule, the last first. 128, 192, 256; else `dec' is left alone. Takes
 * no memory and no card.
 */
void t5sim_aes_deckey(uint8_t *dec, const uint8_t *enc, uint32_t bits);

/* malloc(9), M_WAITOK, M_ZERO if zero is not 0. align: a power of 2. Never NULL. */
void *ts_alloc(size_t size, size_t align, int zero);
void ts_free(void *, size_t size, size_t align);
/* panic(9) with a text of that length. */
__attribute__((noreturn)) void ts_panic(const uint8_t *, size_t);

/* Copy from or to physical memory. 0, or EFAULT if any of it is not memory. */
int ts_dma_read(uint64_t pa, uint8_t *buf, size_t len);
int ts_dma_write(uint64_t pa, const uint8_t *buf, size_t len);
/*
 * A CPL for the ingress queue with that abs_id, and what comes behind it. Copied, and
 * delivered when advance has returned and the card lock is free.
 */
void ts_cpl(struct ts_sink *, uint16_t rxq, const uint8_t *cpl, size_t len,
    const uint8_t *payload, size_t plen);

#endif
