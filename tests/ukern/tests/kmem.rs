//! malloc(9), uma(9), counter(9): what works, and that every net under them catches.

mod common;

use common::{boot_with, panic_of};
use ukern::fault::Plan;

const SRC: &str = r#"
static struct mtx lock; static void *kept; static uma_zone_t zone; static counter_u64_t ctr;
MTX_SYSINIT(mem, &lock, "mem lock", MTX_DEF);
long alloc_zero(long n) { char *p = malloc(n, M_SCRATCH, M_WAITOK | M_ZERO); long s = 0;
    for (long i = 0; i < n; i++) s += p[i]; kept = p; return (s); }
long alloc_dirty(void) { unsigned char *p = malloc(64, M_SCRATCH, M_WAITOK); long v = p[0] == 0xa5 && p[63] == 0xa5; free(p, M_SCRATCH); return (v); }
void drop(void) { free(kept, M_SCRATCH); kept = NULL; }
void *nowait(long n) { return (malloc(n, M_SCRATCH, M_NOWAIT)); }
void put(void *p) { free(p, M_SCRATCH); }
void double_free(void) { void *p = malloc(40, M_SCRATCH, M_WAITOK); free(p, M_SCRATCH); free(p, M_SCRATCH); }
void wrong_type(void) { void *p = malloc(40, M_SCRATCH, M_WAITOK); free(p, M_TEMP); }
void inside(void) { char *p = malloc(40, M_SCRATCH, M_WAITOK); free(p + 8, M_SCRATCH); }
void not_ours(void) { int x; free(&x, M_SCRATCH); }
void overrun(void) { volatile char *p = malloc(40, M_SCRATCH, M_WAITOK); p[40] = 1; free((void *)p, M_SCRATCH); }
void overrun_page(void) { volatile char *p = malloc(4096, M_SCRATCH, M_WAITOK); p[4096] = 1; free((void *)p, M_SCRATCH); }
void write_after(void) { volatile long *p = malloc(40, M_SCRATCH, M_WAITOK); free((void *)p, M_SCRATCH); p[2] = 1; }
void read_after(void) { long **p = malloc(40, M_SCRATCH, M_WAITOK); long x = 0; p[0] = &x; free(p, M_SCRATCH);
    printf("%ld", *((long **)(volatile void *)p)[0]); }
void wait_locked(void) { mtx_lock(&lock); malloc(8, M_SCRATCH, M_WAITOK); }
void wait_epoch(void) { struct epoch_tracker et; NET_EPOCH_ENTER(et); malloc(8, M_SCRATCH, M_WAITOK); }
void wait_critical(void) { critical_enter(); malloc(8, M_SCRATCH, M_WAITOK); }
void no_flags(void) { malloc(8, M_SCRATCH, 0); }
void held_lock(void) { struct mtx *m = malloc(sizeof *m, M_SCRATCH, M_WAITOK | M_ZERO); mtx_init(m, "inner", NULL, 0); mtx_lock(m); free(m, M_SCRATCH); }
static void cb(void *a) {}
void armed(void) { struct callout *c = malloc(sizeof *c, M_SCRATCH, M_WAITOK); callout_init(c, 1); callout_reset(c, 10, cb, NULL); free(c, M_SCRATCH); }
static void tk(void *a, int n) {}
void tasked(void) { struct task *t = malloc(sizeof *t, M_SCRATCH, M_WAITOK); TASK_INIT(t, 0, tk, NULL);
    taskqueue_block(taskqueue_thread); taskqueue_enqueue(taskqueue_thread, t); free(t, M_SCRATCH); }
void leak(void) { malloc(77, M_SCRATCH, M_WAITOK); malloc(23, M_SCRATCH, M_WAITOK); }
long sizes(void) { void *p[200]; int n = 0; for (long s = 1; n < 200; s += 1 + s / 3) { p[n] = malloc(s, M_SCRATCH, M_WAITOK);
    memset(p[n], 0x11, s); if (s >= 4096 && ((uintptr_t)p[n] & 4095)) return (-s); if ((uintptr_t)p[n] & 15) return (-s); n++; if (s > 3000000) break; }
    for (int i = 0; i < n; i++) free(p[i], M_SCRATCH); return (n); }
long contig(void) { char *p = contigmalloc(16384, M_SCRATCH, M_WAITOK, 0, ~0ul, 16384, 0); long ok = ((uintptr_t)p & 16383) == 0;
    contigfree(p, 16384, M_SCRATCH); return (ok); }
static int zc, zd, zi, zf;
static int ctor(void *m, int s, void *a, int f) { zc++; return (a == (void *)1 ? ENOMEM : 0); }
static void dtor(void *m, int s, void *a) { zd++; }
static int init(void *m, int s, int f) { zi++; *(int *)m = 99; return (0); }
static void fini(void *m, int s) { zf++; }
void zmake(void) { zone = uma_zcreate("scratch zone", 100, NULL, NULL, NULL, NULL, UMA_ALIGN_PTR, 0); }
void zmake_full(void) { zone = uma_zcreate("full zone", 100, ctor, dtor, init, fini, UMA_ALIGN_PTR, 0); }
long zcounts(void) { void *p = uma_zalloc(zone, M_WAITOK), *q = uma_zalloc(zone, M_NOWAIT); long r;
    if (uma_zalloc_arg(zone, (void *)1, M_NOWAIT) != NULL) return (-1);
    int kept_init = *(int *)p == 99; uma_zfree(zone, p); uma_zfree(zone, q); r = zc * 100 + zd * 10 + kept_init; return (r); }
long zfini(void) { int made = zi; uma_zdestroy(zone); return (made == zf && made > 0); }
void *zget(void) { return (uma_zalloc(zone, M_NOWAIT)); }
void zput(void *p) { uma_zfree(zone, p); }
void zdone(void) { uma_zdestroy(zone); }
void zdouble(void) { zmake(); void *p = zget(); zput(p); zput(p); }
void zforeign(void) { zmake(); void *p = malloc(100, M_SCRATCH, M_WAITOK); zput(p); }
void zwrite(void) { zmake(); volatile char *p = zget(); zput((void *)p); p[50] = 1; }
long counters(void) { ctr = counter_u64_alloc(M_WAITOK); counter_u64_add(ctr, 40); counter_u64_add(ctr, 2); long v = counter_u64_fetch(ctr);
    counter_u64_zero(ctr); v = v * 10 + counter_u64_fetch(ctr); counter_u64_free(ctr); return (v); }
void counter_after(void) { ctr = counter_u64_alloc(M_WAITOK); counter_u64_free(ctr); counter_u64_fetch(ctr); }
void counter_add_after(void) { ctr = counter_u64_alloc(M_WAITOK); counter_u64_free(ctr); counter_u64_add(ctr, 1); }
void zarmed(void) { struct callout *c; zone = uma_zcreate("co zone", sizeof *c, NULL, NULL, NULL, NULL, UMA_ALIGN_PTR, 0);
    c = uma_zalloc(zone, M_WAITOK); callout_init(c, 1); callout_reset(c, 10, cb, NULL); uma_zfree(zone, c); }
void zlimit(void) { zone = uma_zcreate("small", 64, NULL, NULL, NULL, NULL, UMA_ALIGN_PTR, 0); uma_zone_set_max(zone, 2); }
void *zwait(void) { return (uma_zalloc(zone, M_WAITOK)); }
void big_after(void) { volatile char *p = malloc(20000, M_SCRATCH, M_WAITOK); free((void *)p, M_SCRATCH); p[9000] = 1; }
long re(void) { char *p = malloc(10, M_SCRATCH, M_WAITOK); strcpy(p, "kept"); p = realloc(p, 500, M_SCRATCH, M_WAITOK); long ok = strcmp(p, "kept") == 0;
    free(p, M_SCRATCH); p = strdup("twin", M_SCRATCH); ok = ok * 10 + (strcmp(p, "twin") == 0); zfree(p, M_SCRATCH); free(NULL, M_SCRATCH); return (ok); }
void null_arg(void) { counter_u64_sysinit(NULL); }
void counter_keep(void) { ctr = counter_u64_alloc(M_WAITOK); }
"#;

fn report(func: &str) -> String {
    panic_of(SRC, func)
}

#[test]
fn malloc_zeroes_or_poisons_and_free_balances() {
    let k = boot_with("scratch", SRC);
    assert_eq!(k.call("scratch", "alloc_zero", [5000, 0, 0, 0]), 0);
    k.call("scratch", "drop", [0; 4]);
    assert_eq!(k.call("scratch", "alloc_dirty", [0; 4]), 1);
    assert_eq!(k.call("scratch", "sizes", [0; 4]) as i64, 50);
    assert_eq!(k.call("scratch", "contig", [0; 4]), 1);
    k.kldunload("scratch").unwrap();
    k.shutdown();
}

#[test]
fn a_leak_is_reported_with_its_type() {
    let k = boot_with("scratch", SRC);
    k.call("scratch", "leak", [0; 4]);
    k.kldunload("scratch").unwrap();
    assert!(
        k.console()
            .iter()
            .any(|l| l.contains("scratch leaked memory on destroy (2 allocations, 100 bytes"))
    );
    let r = k.shutdown_report();
    assert!(
        r.leaks
            .iter()
            .any(|l| l.contains("\"scratch\": 2 allocations, 100 bytes")),
        "{:?}",
        r.leaks
    );
}

#[test]
#[should_panic(expected = "left at shutdown")]
fn shutdown_fails_on_a_leak() {
    let k = boot_with("scratch", SRC);
    k.call("scratch", "leak", [0; 4]);
    k.kldunload("scratch").unwrap();
    k.shutdown();
}

#[test]
fn double_free_is_found() {
    let r = report("double_free");
    assert!(
        r.contains("double free") && r.contains("type scratch"),
        "{r}"
    );
}

#[test]
fn free_of_what_malloc_did_not_return_is_found() {
    let r = report("inside");
    assert!(r.contains("which is inside"), "{r}");
    let r = report("not_ours");
    assert!(r.contains("which malloc did not return"), "{r}");
}

#[test]
fn free_with_another_type_is_found() {
    let r = report("wrong_type");
    assert!(
        r.contains("with type temp, but it was allocated with type scratch"),
        "{r}"
    );
}

#[test]
fn overruns_are_found() {
    for f in ["overrun", "overrun_page"] {
        let r = report(f);
        assert!(r.contains("buffer overrun: byte 0 behind"), "{r}");
    }
}

#[test]
fn an_overrun_never_freed_is_found_by_the_sweep() {
    let k = boot_with("scratch", SRC);
    let api = k.api();
    let r = k.expect_panic(move || {
        let p = api.call("scratch", "nowait", [40, 0, 0, 0]);
        ukern::kp::poke(p as usize + 41, 7_u8);
        ukern::kmem::check_all();
    });
    assert!(r.contains("buffer overrun: byte 1 behind"), "{r}");
}

#[test]
fn a_write_to_freed_memory_is_found_by_the_sweep() {
    let k = boot_with("scratch", SRC);
    k.call("scratch", "write_after", [0; 4]);
    k.kldunload("scratch").unwrap();
    let r = k.expect_panic(ukern::kmem::check_all);
    assert!(
        r.contains("memory modified after free") && r.contains("at offset 16"),
        "{r}"
    );
}

#[test]
#[should_panic(expected = "memory modified after free")]
fn shutdown_sweeps() {
    let k = boot_with("scratch", SRC);
    k.call("scratch", "write_after", [0; 4]);
    k.kldunload("scratch").unwrap();
    k.shutdown();
}

#[test]
fn a_read_of_freed_memory_faults() {
    let r = report("read_after");
    assert!(
        r.contains("page fault") && r.contains("poisoned pointer") && r.contains("read_after"),
        "{r}"
    );
}

#[test]
fn waiting_for_memory_where_one_must_not_sleep_is_found() {
    let r = report("wait_locked");
    assert!(
        r.contains("malloc(M_WAITOK) of \"scratch\"") && r.contains("\"mem lock\""),
        "{r}"
    );
    let r = report("wait_epoch");
    assert!(r.contains("sleeping in epoch \"Net preemptible\""), "{r}");
    let r = report("wait_critical");
    assert!(r.contains("critical section"), "{r}");
}

#[test]
fn malloc_without_a_wait_flag_is_found() {
    let r = report("no_flags");
    assert!(r.contains("exactly one of M_NOWAIT and M_WAITOK"), "{r}");
}

#[test]
fn freeing_memory_in_use_is_found() {
    let r = report("held_lock");
    assert!(
        r.contains("contains a held lock") && r.contains("\"inner\""),
        "{r}"
    );
    let r = report("armed");
    assert!(r.contains("contains a pending callout"), "{r}");
    let r = report("tasked");
    assert!(
        r.contains("contains a task pending on taskqueue thread"),
        "{r}"
    );
}

#[test]
fn nowait_fails_when_told_to() {
    let k = boot_with("scratch", SRC);
    let get = || k.call("scratch", "nowait", [32, 0, 0, 0]);
    k.fail("malloc", Plan::Nth(3));
    let all: Vec<u64> = (0..5).map(|_| get()).collect();
    assert_eq!(
        all.iter().map(|&p| p == 0).collect::<Vec<_>>(),
        [false, false, true, false, false]
    );
    assert_eq!(k.fail_count("malloc"), (5, 1));
    k.fail("malloc", Plan::From(2));
    assert_ne!(get(), 0);
    assert_eq!((get(), get()), (0, 0));
    k.fail("malloc", Plan::OneIn(4));
    let hits = (0..400)
        .filter(|_| k.call("scratch", "nowait", [0; 4]) == 0)
        .count();
    assert!((50..170).contains(&hits), "{hits}");
    let leaked = k.shutdown_report().leaks;
    assert!(!leaked.is_empty());
}

#[test]
fn zones_construct_destroy_and_keep_init() {
    let k = boot_with("scratch", SRC);
    k.call("scratch", "zmake_full", [0; 4]);
    // Three constructors (one failing), two destructors, and init's value still there.
    assert_eq!(k.call("scratch", "zcounts", [0; 4]), 321);
    assert_eq!(k.call("scratch", "zfini", [0; 4]), 1);
    k.kldunload("scratch").unwrap();
    k.shutdown();
}

#[test]
fn zone_errors_are_found() {
    let r = report("zdouble");
    assert!(
        r.contains("double free") && r.contains("scratch zone"),
        "{r}"
    );
    let r = report("zforeign");
    assert!(r.contains("which did not allocate it"), "{r}");
    let k = boot_with("scratch", SRC);
    k.call("scratch", "zwrite", [0; 4]);
    let r = k.expect_panic(ukern::uma::check_all);
    assert!(r.contains("of zone scratch zone at offset 50"), "{r}");
}

#[test]
fn zones_and_items_left_are_leaks() {
    let k = boot_with("scratch", SRC);
    k.call("scratch", "zmake", [0; 4]);
    k.call("scratch", "zget", [0; 4]);
    k.call("scratch", "zdone", [0; 4]);
    k.call("scratch", "zmake", [0; 4]);
    k.kldunload("scratch").unwrap();
    assert!(
        k.console()
            .iter()
            .any(|l| l.contains("(scratch zone) was not empty (1 items)"))
    );
    let r = k.shutdown_report();
    assert!(
        r.leaks.iter().any(|l| l.contains("destroyed with 1 items")),
        "{:?}",
        r.leaks
    );
    assert!(
        r.leaks
            .iter()
            .any(|l| l.contains("zone \"scratch zone\" itself")),
        "{:?}",
        r.leaks
    );
}

#[test]
fn an_armed_callout_in_a_freed_item_is_found() {
    assert!(report("zarmed").contains("of zone co zone contains a pending callout"));
}

#[test]
fn a_zone_with_a_limit_makes_callers_wait() {
    let k = boot_with("scratch", SRC);
    k.call("scratch", "zlimit", [0; 4]);
    let api = k.api();
    k.exec(move || {
        let a = api.call("scratch", "zwait", [0; 4]);
        let b = api.call("scratch", "zwait", [0; 4]);
        assert_eq!(api.call("scratch", "zget", [0; 4]), 0, "full");
        let waiter = ukern::sched::spawn_kthread("waiter", move || {
            let c = api.call("scratch", "zwait", [0; 4]);
            api.call("scratch", "zput", [c, 0, 0, 0]);
        });
        ukern::sched::sleep_for(ukern::sched::SBT_1MS, "w");
        assert!(!ukern::sched::is_dead(waiter));
        api.call("scratch", "zput", [a, 0, 0, 0]);
        ukern::sched::join(waiter);
        api.call("scratch", "zput", [b, 0, 0, 0]);
    });
    k.call("scratch", "zdone", [0; 4]);
    k.kldunload("scratch").unwrap();
    k.shutdown();
}

#[test]
fn a_write_to_a_freed_run_of_pages_is_found() {
    let k = boot_with("scratch", SRC);
    assert_eq!(k.call("scratch", "re", [0; 4]), 11);
    k.call("scratch", "big_after", [0; 4]);
    let r = k.expect_panic(ukern::kmem::check_all);
    assert!(
        r.contains("memory modified after free") && r.contains("at offset 9000"),
        "{r}"
    );
}

#[test]
fn null_where_the_interface_wants_an_object_is_found() {
    let r = report("null_arg");
    assert!(
        r.contains("bad pointer 0x0") && r.contains("from scratch.ko: null_arg+"),
        "{r}"
    );
}

#[test]
fn page_frames_are_given_back_once() {
    let k = ukern::boot(ukern::Config::default());
    let r = k.expect_panic(|| {
        let f = ukern::phys::alloc_frame(true).unwrap();
        assert!(ukern::phys::is_allocated(f, 4096) && !ukern::phys::is_allocated(f, 1 << 30));
        ukern::phys::free_frame(f);
        assert!(!ukern::phys::is_allocated(f, 1));
        ukern::phys::free_frame(f);
    });
    assert!(r.contains("which is not allocated"), "{r}");
}

#[test]
fn frames_are_zeroed_poisoned_limited_and_partly_in_a_row() {
    let k = ukern::boot(ukern::Config {
        user_frames: 500,
        ..ukern::Config::default()
    });
    let all: Vec<usize> = (0..500)
        .map(|_| ukern::phys::alloc_frame(true).unwrap())
        .collect();
    assert!(ukern::phys::alloc_frame(true).is_none());
    let rows = all.windows(2).filter(|w| w[1] == w[0] + 4096).count();
    assert!((100..450).contains(&rows), "{rows}");
    for &f in &all {
        assert!(
            ukern::kp::bytes(f as *const u8, 4096)
                .iter()
                .all(|&b| b == 0)
        );
        ukern::phys::free_frame(f);
        assert!(
            ukern::kp::bytes(f as *const u8, 4096)
                .iter()
                .all(|&b| b != 0),
            "poisoned"
        );
    }
    k.shutdown();
}

#[test]
fn counters_count() {
    let k = boot_with("scratch", SRC);
    assert_eq!(k.call("scratch", "counters", [0; 4]), 420);
    k.call("scratch", "counter_keep", [0; 4]);
    k.kldunload("scratch").unwrap();
    let r = k.shutdown_report();
    assert!(
        r.leaks
            .iter()
            .any(|l| l.contains("zone \"64 pcpu\": 1 items")),
        "{:?}",
        r.leaks
    );
}

#[test]
fn freed_counters_are_watched() {
    let r = report("counter_after");
    assert!(r.contains("is no counter"), "{r}");
    let k = boot_with("scratch", SRC);
    k.call("scratch", "counter_add_after", [0; 4]);
    let r = k.expect_panic(ukern::uma::check_all);
    assert!(r.contains("of zone 64 pcpu"), "{r}");
}
