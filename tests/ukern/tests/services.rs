//! sysctl(9), mbuf(9), sglist(9), vmem(9), libkern, devices.

mod common;

use common::{boot_with, idle_module, panic_of};
use ukern::fault::Plan;
use ukern::sysctl::Value;
use ukern::{Config, boot};

const ENOENT: i32 = 2;
const EPERM: i32 = 1;
const EINVAL: i32 = 22;

const SYSCTL: &str = r#"
static struct sysctl_ctx_list ctx; static struct sysctl_oid *tree; static counter_u64_t c, many[3];
static int i = -7; static u_int u = 8; static long l = -9; static uint64_t q = 1ul << 40; static bool b = true; static uint8_t u8 = 200; static uint16_t u16 = 60000;
static char str[16] = "hello"; static int ms = 250; static int inproc;
SYSCTL_NODE(_hw, OID_AUTO, scratch, CTLFLAG_RW | CTLFLAG_MPSAFE, 0, "scratch");
SYSCTL_INT(_hw_scratch, OID_AUTO, i, CTLFLAG_RWTUN, &i, 0, ""); SYSCTL_UINT(_hw_scratch, OID_AUTO, u, CTLFLAG_RD, &u, 0, "");
SYSCTL_LONG(_hw_scratch, OID_AUTO, l, CTLFLAG_RW, &l, 0, ""); SYSCTL_UQUAD(_hw_scratch, OID_AUTO, q, CTLFLAG_RW, &q, 0, "");
SYSCTL_BOOL(_hw_scratch, OID_AUTO, b, CTLFLAG_RW, &b, 0, ""); SYSCTL_U8(_hw_scratch, OID_AUTO, u8, CTLFLAG_RW, &u8, 0, "");
SYSCTL_U16(_hw_scratch, OID_AUTO, u16, CTLFLAG_RW, &u16, 0, ""); SYSCTL_STRING(_hw_scratch, OID_AUTO, s, CTLFLAG_RW, str, sizeof(str), "");
SYSCTL_INT(_hw_scratch, OID_AUTO, konst, CTLFLAG_RW, SYSCTL_NULL_INT_PTR, 31, "");
static int proc(SYSCTL_HANDLER_ARGS) { int v = arg2, e; inproc++; e = sysctl_handle_int(oidp, &v, 0, req); if (e == 0 && req->newptr != NULL) { if (v > 100) e = ERANGE; else i = v; } inproc--; return (e); }
SYSCTL_PROC(_hw_scratch, OID_AUTO, proc, CTLTYPE_INT | CTLFLAG_RW | CTLFLAG_MPSAFE, NULL, 55, proc, "I", "");
static int slow(SYSCTL_HANDLER_ARGS) { pause("slow", hz); return (SYSCTL_OUT_STR(req, "done")); }
SYSCTL_PROC(_hw_scratch, OID_AUTO, slow, CTLTYPE_STRING | CTLFLAG_RD | CTLFLAG_MPSAFE, NULL, 0, slow, "A", "");
static struct mtx m; MTX_SYSINIT(sc, &m, "sc", MTX_DEF);
static int leaky(SYSCTL_HANDLER_ARGS) { mtx_lock(&m); return (0); }
SYSCTL_PROC(_hw_scratch, OID_AUTO, leaky, CTLTYPE_INT | CTLFLAG_RD | CTLFLAG_SKIP | CTLFLAG_MPSAFE, NULL, 0, leaky, "I", "");
void attach(void) {
    struct sysctl_oid *dev, *toe; sysctl_ctx_init(&ctx); c = counter_u64_alloc(M_WAITOK); counter_u64_add(c, 12);
    for (int n = 0; n < 3; n++) { many[n] = counter_u64_alloc(M_WAITOK); counter_u64_add(many[n], n + 1); }
    dev = SYSCTL_ADD_NODE(&ctx, SYSCTL_STATIC_CHILDREN(_dev), OID_AUTO, "t5nex", CTLFLAG_RD | CTLFLAG_MPSAFE, NULL, "");
    tree = SYSCTL_ADD_NODE(&ctx, SYSCTL_CHILDREN(dev), OID_AUTO, "0", CTLFLAG_RD | CTLFLAG_MPSAFE, NULL, "");
    toe = SYSCTL_ADD_NODE(&ctx, SYSCTL_CHILDREN(tree), OID_AUTO, "toe", CTLFLAG_RD | CTLFLAG_MPSAFE, NULL, "");
    SYSCTL_ADD_INT(&ctx, SYSCTL_CHILDREN(toe), OID_AUTO, "ddp", CTLFLAG_RW, &i, 0, "");
    SYSCTL_ADD_COUNTER_U64(&ctx, SYSCTL_CHILDREN(toe), OID_AUTO, "count", CTLFLAG_RW, &c, "");
    SYSCTL_ADD_COUNTER_U64_ARRAY(&ctx, SYSCTL_CHILDREN(toe), OID_AUTO, "many", CTLFLAG_RD, many, 3, "");
    SYSCTL_ADD_PROC(&ctx, SYSCTL_CHILDREN(toe), OID_AUTO, "ms", CTLTYPE_INT | CTLFLAG_RW | CTLFLAG_MPSAFE, &ms, 0, sysctl_msec_to_ticks, "I", "");
}
int get_ms(void) { return (ms); }
int attach_twice(void) { struct sysctl_ctx_list c2; sysctl_ctx_init(&c2);
    struct sysctl_oid *d = SYSCTL_ADD_NODE(&c2, SYSCTL_STATIC_CHILDREN(_dev), OID_AUTO, "t5nex", CTLFLAG_RD, NULL, "");
    int dup = SYSCTL_ADD_INT(&c2, SYSCTL_CHILDREN(tree), OID_AUTO, "toe", CTLFLAG_RW, &i, 0, "") == NULL; return (sysctl_ctx_free(&c2) * 10 + dup); }
int detach(void) { int e = sysctl_ctx_free(&ctx); counter_u64_free(c); for (int n = 0; n < 3; n++) counter_u64_free(many[n]); return (e); }
"#;

#[test]
fn static_oids_read_write_and_check() {
    let k = boot_with("scratch", SYSCTL);
    let get = |n: &str| k.sysctl_get(&format!("hw.scratch.{n}"));
    assert_eq!(get("i"), Ok(Value::Int(-7)));
    assert_eq!(get("u"), Ok(Value::Uint(8)));
    assert_eq!(get("l"), Ok(Value::Int(-9)));
    assert_eq!(get("q"), Ok(Value::Uint(1 << 40)));
    assert_eq!(get("b").unwrap().as_u64(), Some(1));
    assert_eq!(
        (get("u8").unwrap().as_u64(), get("u16").unwrap().as_u64()),
        (Some(200), Some(60000))
    );
    assert_eq!(get("s"), Ok(Value::Text("hello".into())));
    assert_eq!(get("konst"), Ok(Value::Int(31)));
    let set = |n: &str, v: &str| k.sysctl_set(&format!("hw.scratch.{n}"), v);
    assert_eq!(set("i", "5"), Ok(()));
    assert_eq!(set("l", "-12345678901"), Ok(()));
    assert_eq!(set("s", "other"), Ok(()));
    assert_eq!(
        (get("i"), get("l")),
        (Ok(Value::Int(5)), Ok(Value::Int(-12_345_678_901)))
    );
    assert_eq!(get("s").unwrap().to_string(), "other");
    assert_eq!(set("s", "much too long for it"), Err(EINVAL));
    assert_eq!(set("u", "1"), Err(EPERM), "read-only");
    assert_eq!(set("konst", "1"), Err(EPERM), "a constant");
    assert_eq!(set("i", "five"), Err(EINVAL));
    assert_eq!(k.sysctl_get("hw.scratch.none"), Err(ENOENT));
    assert_eq!(set("proc", "101"), Err(34), "the handler's ERANGE");
    assert_eq!(set("proc", "77"), Ok(()));
    assert_eq!(
        (get("proc"), get("i")),
        (Ok(Value::Int(55)), Ok(Value::Int(77)))
    );
    k.kldunload("scratch").unwrap();
    assert_eq!(k.sysctl_get("hw.scratch.i"), Err(ENOENT));
    k.shutdown();
}

#[test]
fn dynamic_trees_hang_on_dev_and_go_with_their_context() {
    let k = boot_with("scratch", SYSCTL);
    k.call("scratch", "attach", [0; 4]);
    let names: Vec<String> = k
        .sysctl_tree("dev.t5nex.0")
        .into_iter()
        .map(|(n, v)| format!("{n}={v}"))
        .collect();
    assert_eq!(
        names[..2],
        ["dev.t5nex.0.toe.ddp=-7", "dev.t5nex.0.toe.count=12"]
    );
    assert_eq!(names.len(), 4);
    let Ok(Value::Opaque(many)) = k.sysctl_get("dev.t5nex.0.toe.many") else {
        panic!("an array")
    };
    assert_eq!(many.chunks(8).map(|c| c[0]).collect::<Vec<_>>(), [1, 2, 3]);
    k.sysctl_set("dev.t5nex.0.toe.count", 0).unwrap();
    assert_eq!(k.sysctl_get("dev.t5nex.0.toe.count"), Ok(Value::Uint(0)));
    k.sysctl_set("dev.t5nex.0.toe.ms", 20).unwrap();
    assert_eq!(k.call("scratch", "get_ms", [0; 4]), 20);
    assert_eq!(k.call("scratch", "attach_twice", [0; 4]), 1);
    assert!(
        k.console()
            .iter()
            .any(|l| l.contains("can't re-use a leaf (dev.t5nex.0.toe)"))
    );
    assert_eq!(k.call("scratch", "detach", [0; 4]), 0);
    assert!(k.sysctl_tree("dev").is_empty());
    k.kldunload("scratch").unwrap();
    k.shutdown();
}

#[test]
fn tunables_take_effect_at_load() {
    let ko = idle_module("scratch", SYSCTL);
    let k = boot(Config::default());
    k.kenv("hw.scratch.i", "1234");
    k.kldload(&ko).unwrap();
    assert_eq!(k.sysctl_get("hw.scratch.i"), Ok(Value::Int(1234)));
    k.kldunload("scratch").unwrap();
    k.shutdown();
}

#[test]
fn unloading_waits_for_a_running_handler() {
    let k = boot_with("scratch", SYSCTL);
    let api = k.api();
    let out = k.exec(move || {
        let got = std::rc::Rc::new(std::cell::RefCell::new(None));
        let g = got.clone();
        let reader = ukern::sched::spawn_kthread("reader", move || {
            *g.borrow_mut() = Some(api.sysctl_get("hw.scratch.slow"));
        });
        ukern::sched::sleep_for(ukern::sched::SBT_1MS, "w");
        assert_eq!(api.kldunload("scratch"), Ok(()));
        ukern::sched::join(reader);
        got.take()
    });
    assert_eq!(out, Some(Ok(Value::Text("done".into()))));
    k.shutdown();
}

#[test]
fn a_handler_that_keeps_a_lock_is_found() {
    let k = boot_with("scratch", SYSCTL);
    let api = k.api();
    let r = k.expect_panic(move || api.sysctl_get("hw.scratch.leaky"));
    assert!(
        r.contains("sysctl handler returned while holding exclusive sleep mutex \"sc\""),
        "{r}"
    );
}

const MBUF: &str = r#"
static int frees; static char storage[3000]; static void *lasta, *lastb;
static void ext_free(struct mbuf *m) { frees++; lasta = m->m_ext.ext_arg1; lastb = m->m_ext.ext_arg2; }
static void epg_free(struct mbuf *m) { frees += 10; lasta = m->m_ext.ext_arg1; }
long get_all(void) {
    struct mbuf *a = m_get(M_WAITOK, MT_DATA), *b = m_gethdr(M_NOWAIT, MT_DATA), *c = m_getcl(M_WAITOK, MT_DATA, M_PKTHDR), *d = m_getjcl(M_NOWAIT, MT_DATA, 0, MJUM9BYTES);
    long r = 0; if (a->m_len == 0 && a->m_next == NULL && a->m_data == a->m_dat && M_TRAILINGSPACE(a) == MLEN) r |= 1;
    if (b->m_flags == M_PKTHDR && b->m_pkthdr.len == 0 && b->m_data == b->m_pktdat && M_TRAILINGSPACE(b) == MHLEN) r |= 2;
    if ((c->m_flags & (M_EXT | M_PKTHDR)) == (M_EXT | M_PKTHDR) && c->m_ext.ext_size == MCLBYTES && c->m_ext.ext_type == EXT_PACKET && M_WRITABLE(c)) r |= 4;
    if (M_TRAILINGSPACE(d) == MJUM9BYTES && d->m_ext.ext_type == EXT_JUMBO9) r |= 8;
    if (m_free(a) == NULL) r |= 16; m_freem(b); m_freem(c); m_freem(d); return (r);
}
static struct mbuf *filled(int n) { struct mbuf *m = m_getm2(NULL, n, M_WAITOK, MT_DATA, M_PKTHDR), *x; unsigned char v = 0; int left = n;
    for (x = m; x; x = x->m_next) { x->m_len = min(left, M_TRAILINGSPACE(x)); left -= x->m_len; for (int i = 0; i < x->m_len; i++) x->m_data[i] = v++; } m->m_pkthdr.len = n; return (m); }
static int good(struct mbuf *m, int off, int n, unsigned char v) { static unsigned char buf[20000]; m_copydata(m, off, n, buf); for (int i = 0; i < n; i++) if (buf[i] != (unsigned char)(v + i)) return (0); return (1); }
long chains(void) { long r = 0; struct mbuf *m = filled(9000), *c, *d, *t, *last; u_int len = m_length(m, &last);
    if (len == 9000 && last->m_next == NULL && good(m, 0, 9000, 0) && m_sanity(m, 0)) r |= 1;
    c = m_copym(m, 100, 5000, M_NOWAIT); if (good(c, 0, 5000, 100) && !M_WRITABLE(c)) r |= 2; m_freem(m); if (good(c, 0, 5000, 100)) r |= 4;
    d = m_dup(c, M_WAITOK); if (good(d, 0, 5000, 100) && M_WRITABLE(d)) r |= 8; m_freem(c); m_adj(d, 50); m_adj(d, -50);
    if (m_length(d, NULL) == 4900 && good(d, 0, 4900, 150)) r |= 16; t = m_split(d, 1000, M_WAITOK);
    if (m_length(d, NULL) == 1000 && m_length(t, NULL) == 3900 && good(t, 0, 3900, (unsigned char)1150)) r |= 32; m_cat(d, t);
    if (m_length(d, NULL) == 4900 && good(d, 0, 4900, 150)) r |= 64; d->m_flags |= M_PKTHDR * 0; d = m_pullup(d, 120); if (d->m_len >= 120 && good(d, 0, 4900, 150)) r |= 128;
    M_PREPEND(d, 20, M_NOWAIT); if (m_length(d, NULL) == 4920 && good(d, 20, 4900, 150)) r |= 256; m_adj(d, 20);
    if (m_append(d, 5, "\1\2\3\4\5") && m_length(d, NULL) == 4905) r |= 512; m_copyback(d, 4900, 8, "abcdefgh"); char e[8]; m_copydata(d, 4900, 8, e);
    if (m_length(d, NULL) == 4908 && memcmp(e, "abcdefgh", 8) == 0) r |= 1024; m_freem(d); return (r); }
long ext(void) { struct mbuf *m = m_get(M_WAITOK, MT_DATA), *c; for (int i = 0; i < 3000; i++) storage[i] = i; m_extadd(m, storage, 3000, ext_free, (void *)1, (void *)2, M_RDONLY, EXT_NET_DRV); m->m_len = 3000;
    c = m_copym(m, 0, M_COPYALL, M_WAITOK); long r = m_extrefcnt(m) == 2; m_freem(m); r = r * 10 + frees; if (good(c, 0, 3000, 0)) r = r * 10 + 1; m_freem(c);
    return (r * 1000 + frees * 100 + (long)lasta * 10 + (long)lastb); }
long extref(void) { static u_int ref = 0; struct mbuf *m = m_get(M_WAITOK, MT_DATA); m_extaddref(m, storage, 3000, &ref, ext_free, (void *)7, NULL); m->m_len = 10;
    struct mbuf *c = m_copym(m, 0, M_COPYALL, M_WAITOK); m_freem(c); int mid = frees; m_freem(m); return (mid * 100 + frees * 10 + (long)lasta); }
long epg(char *p, char *q) { struct mbuf *m = mb_alloc_ext_pgs(M_WAITOK, epg_free, 0), *c; struct sglist_seg segs[8]; struct sglist sg; for (int i = 0; i < 4096; i++) { p[i] = i; q[i] = i + 4096; }
    m->m_epg_pa[0] = (vm_paddr_t)p; m->m_epg_pa[1] = (vm_paddr_t)q; m->m_epg_npgs = 2; m->m_epg_1st_off = 100; m->m_epg_last_len = 200; m->m_len = 3996 + 200; m->m_ext.ext_arg1 = (void *)5; m->m_ext.ext_size = 8192;
    long r = good(m, 0, m->m_len, 100); c = m_copym(m, 1000, 3100, M_WAITOK); if ((c->m_flags & M_EXTPG) && good(c, 0, 3100, (unsigned char)1100)) r |= 2; m_freem(m); if (frees == 0 && good(c, 10, 3000, (unsigned char)1110)) r |= 4;
    sglist_init(&sg, 8, segs); if (sglist_append_mbuf(&sg, c) == 0 && sg.sg_nseg == 2 && segs[0].ss_paddr == (vm_paddr_t)p + 1100 && segs[0].ss_len == 2996 && segs[1].ss_paddr == (vm_paddr_t)q && segs[1].ss_len == 104) r |= 8;
    m_freem(c); return (r * 1000 + frees * 10 + (long)lasta); }
void *mbuf_leak(void) { return (m_getcl(M_NOWAIT, MT_DATA, 0)); }
void mbuf_double(void) { struct mbuf *m = m_get(M_WAITOK, MT_DATA); m_freem(m); m_freem(m); }
void mbuf_after(void) { struct mbuf *m = m_get(M_WAITOK, MT_DATA); m_freem(m); m->m_dat[3] = 1; }
void nofree(void) { struct mbuf *m = m_get(M_WAITOK, MT_DATA); m_extadd(m, storage, 3000, NULL, NULL, NULL, 0, EXT_NET_DRV); m_freem(m); }
void too_far(void) { struct mbuf *m = m_get(M_WAITOK, MT_DATA); char b[8]; m->m_len = 4; m_copydata(m, 0, 8, b); }
void unmapped(void) { struct mbuf *m = mb_alloc_ext_pgs(M_WAITOK, epg_free, 0); m_pullup(m, 0); }
void wait_mtx(void) { static struct mtx x; mtx_init(&x, "x", NULL, 0); mtx_lock(&x); m_get(M_WAITOK, MT_DATA); }
"#;

fn mbuf_call(func: &str) -> u64 {
    let k = boot_with("scratch", MBUF);
    let v = k.call("scratch", func, [0; 4]);
    k.kldunload("scratch").unwrap();
    k.shutdown();
    v
}

#[test]
fn mbufs_come_initialised_and_go_back() {
    assert_eq!(mbuf_call("get_all"), 31);
}

#[test]
fn chain_operations_keep_every_byte() {
    assert_eq!(mbuf_call("chains"), 2047);
}

#[test]
fn external_storage_is_freed_once_with_its_arguments() {
    // Two references; not freed after the first; readable; then freed with both arguments.
    assert_eq!(mbuf_call("ext"), 101_112);
    assert_eq!(mbuf_call("extref"), 17);
}

#[test]
fn unmapped_pages_copy_share_and_list() {
    let k = boot_with("scratch", MBUF);
    let page = || ukern::phys::alloc_frame(true).unwrap() as u64;
    // The second page below the first, so that the two are no single range.
    let (q, p) = (page(), page());
    assert_eq!(k.call("scratch", "epg", [p, q, 0, 0]), 15_105);
    k.exec(move || {
        ukern::phys::free_frame(p as usize);
        ukern::phys::free_frame(q as usize);
    });
    k.kldunload("scratch").unwrap();
    k.shutdown();
}

#[test]
fn mbuf_errors_are_found() {
    let r = panic_of(MBUF, "mbuf_double");
    assert!(r.contains("double free of mbuf"), "{r}");
    assert!(
        r.contains("from scratch.ko: mbuf_double+"),
        "a backtrace: {r}"
    );
    assert!(panic_of(MBUF, "nofree").contains("with no free routine"));
    assert!(panic_of(MBUF, "too_far").contains("m_copydata: 8 bytes wanted, 4 there"));
    assert!(panic_of(MBUF, "wait_mtx").contains("uma_zalloc(M_WAITOK) of \"mbuf\""));
    let k = boot_with("scratch", MBUF);
    k.call("scratch", "mbuf_after", [0; 4]);
    assert!(
        k.expect_panic(ukern::uma::check_all)
            .contains("of zone mbuf at offset")
    );
}

#[test]
fn mbuf_leaks_and_shortages() {
    let k = boot_with("scratch", MBUF);
    k.fail("mbuf", Plan::Nth(2));
    // The second allocation is the cluster: the mbuf must not stay behind.
    assert_eq!(k.call("scratch", "mbuf_leak", [0; 4]), 0);
    assert_eq!(ukern::mbuf::live(), (0, 0));
    assert_ne!(k.call("scratch", "mbuf_leak", [0; 4]), 0);
    k.kldunload("scratch").unwrap();
    let r = k.shutdown_report();
    assert!(
        r.leaks.iter().any(|l| l.contains("zone \"mbuf\": 1 items")),
        "{:?}",
        r.leaks
    );
    assert!(
        r.leaks
            .iter()
            .any(|l| l.contains("zone \"mbuf_cluster\": 1 items")),
        "{:?}",
        r.leaks
    );
}

#[test]
fn probes_fire_once_enabled() {
    let k = boot_with(
        "scratch",
        r#"
SDT_PROVIDER_DEFINE(scr); SDT_PROBE_DEFINE2(scr, ddp, post, done, "int", "int"); SDT_PROBE_DEFINE1(scr, ddp, post, other, "int");
void f(int a, int b) { SDT_PROBE2(scr, ddp, post, done, a, b); SDT_PROBE1(scr, ddp, post, other, a); }
"#,
    );
    k.call("scratch", "f", [1, 2, 0, 0]);
    assert!(k.fired().is_empty());
    assert_eq!(k.probes("scratch", ":done"), ["scr:ddp:post:done"]);
    k.call("scratch", "f", [3, 4, 0, 0]);
    let fired = k.fired();
    assert_eq!(fired.len(), 1);
    assert_eq!(
        (fired[0].probe.as_str(), &fired[0].args[..2]),
        ("scr:ddp:post:done", &[3, 4][..])
    );
    k.kldunload("scratch").unwrap();
    k.shutdown();
}

const VMEM: &str = r#"
static vmem_t *v;
long arena(void) { vmem_addr_t a, b, c, d; long r = 0; v = vmem_create("scratch", 1000 * 64, 64 * 64, 64, 0, M_WAITOK);
    if (vmem_alloc(v, 100, M_NOWAIT | M_BESTFIT, &a) == 0 && a == 64000) r |= 1; if (vmem_alloc(v, 64, M_NOWAIT | M_FIRSTFIT, &b) == 0 && b == 64128) r |= 2;
    if (vmem_xalloc(v, 256, 512, 0, 0, VMEM_ADDR_MIN, VMEM_ADDR_MAX, M_NOWAIT | M_FIRSTFIT, &c) == 0 && c % 512 == 0) r |= 4;
    if (vmem_xalloc(v, 192, 64, 0, 256, 64500, VMEM_ADDR_MAX, M_NOWAIT | M_FIRSTFIT, &d) == 0 && d / 256 == (d + 191) / 256 && d >= 64500) r |= 8;
    if (vmem_size(v, VMEM_ALLOC) == 128 + 64 + 256 + 192) r |= 16; vmem_addr_t x; if (vmem_alloc(v, 64 * 64, M_NOWAIT | M_FIRSTFIT, &x) == ENOMEM) r |= 32;
    vmem_free(v, a, 100); vmem_free(v, b, 64); vmem_xfree(v, c, 256); vmem_xfree(v, d, 192);
    if (vmem_size(v, VMEM_MAXFREE) == 64 * 64 && vmem_alloc(v, 64 * 64, M_NOWAIT | M_FIRSTFIT, &x) == 0) r |= 64; vmem_free(v, x, 64 * 64); vmem_destroy(v); return (r); }
void busy(void) { vmem_addr_t a; v = vmem_create("busy", 0, 640, 64, 0, M_WAITOK); vmem_alloc(v, 64, M_NOWAIT | M_FIRSTFIT, &a); vmem_destroy(v); }
void wrong(void) { vmem_addr_t a; v = vmem_create("wrong", 0, 640, 64, 0, M_WAITOK); vmem_alloc(v, 64, M_NOWAIT | M_FIRSTFIT, &a); vmem_free(v, a, 128); }
void keep(void) { v = vmem_create("kept", 0, 640, 64, 0, M_WAITOK); }
static int cmp(const void *a, const void *b) { return (*(const int *)a - *(const int *)b); }
long lib(void) { int a[5] = { 5, 3, 9, 1, 7 }; char b[8]; long r = 0; qsort(a, 5, sizeof(int), cmp); if (a[0] == 1 && a[4] == 9 && a[2] == 5) r |= 1;
    if (strlcpy(b, "longer than that", sizeof b) == 16 && strcmp(b, "longer ") == 0) r |= 2; if (strncmp("abcd", "abxx", 2) == 0 && strncmp("abcd", "abxx", 3) < 0) r |= 4;
    if (strchr("hello", 'l') != NULL && strstr("hello", "lo") != NULL && strlen("four") == 4) r |= 8; memmove(b + 1, b, 6); if (b[1] == 'l' && b[2] == 'o') r |= 16;
    if (arc4random() != arc4random() && priv_check(curthread, 1) == 0) r |= 32; return (r); }
void overlap(void) { char b[16]; memset(b, 0, 16); void *(*volatile f)(void *, const void *, size_t) = memcpy; f(b, b + 4, 8); }
long sg(char *p) { struct sglist *s = sglist_alloc(3, M_WAITOK); long r = 0; if (sglist_append(s, p, 100) == 0 && sglist_append(s, p + 100, 50) == 0 && s->sg_nseg == 1 && s->sg_segs[0].ss_len == 150) r |= 1;
    if (sglist_append_phys(s, (vm_paddr_t)p + 1000, 10) == 0 && sglist_append_phys(s, (vm_paddr_t)p + 2000, 10) == 0 && sglist_append_phys(s, (vm_paddr_t)p + 3000, 10) == EFBIG && s->sg_nseg == 3) r |= 2;
    if (sglist_length(s) == 170 && sglist_count(p, 5000) == 1) r |= 4; sglist_free(s); return (r); }
"#;

#[test]
fn vmem_places_as_asked_and_merges() {
    let k = boot_with("scratch", VMEM);
    assert_eq!(k.call("scratch", "arena", [0; 4]), 127);
    assert_eq!(k.call("scratch", "lib", [0; 4]), 63);
    let p = ukern::phys::alloc_run(2).unwrap() as u64;
    assert_eq!(k.call("scratch", "sg", [p, 0, 0, 0]), 7);
    k.exec(move || ukern::phys::free_run(p as usize));
    k.call("scratch", "keep", [0; 4]);
    k.kldunload("scratch").unwrap();
    let r = k.shutdown_report();
    assert_eq!(r.leaks, ["vmem arena \"kept\""]);
}

#[test]
fn vmem_and_libkern_misuse_is_found() {
    assert!(panic_of(VMEM, "busy").contains("vmem_destroy of \"busy\" with 1 spans"));
    assert!(panic_of(VMEM, "wrong").contains("which is not allocated so"));
    assert!(panic_of(VMEM, "overlap").contains("memcpy of overlapping memory"));
    let r = panic_of(
        "int f(void) { struct sglist *s = sglist_alloc(1, M_WAITOK); int x; return sglist_append(s, &x, 4); }",
        "f",
    );
    assert!(r.contains("not memory the adapter can reach"), "{r}");
}

#[test]
fn devices_have_a_name_a_unit_and_a_tree() {
    let k = boot_with(
        "scratch",
        r#"
struct _device; extern const char *device_get_nameunit(struct _device *); extern struct sysctl_ctx_list *device_get_sysctl_ctx(struct _device *);
extern struct sysctl_oid *device_get_sysctl_tree(struct _device *); extern int device_printf(struct _device *, const char *, ...);
static int v = 3;
int f(struct _device *d) { SYSCTL_ADD_INT(device_get_sysctl_ctx(d), SYSCTL_CHILDREN(device_get_sysctl_tree(d)), OID_AUTO, "v", CTLFLAG_RD, &v, 0, "");
    return (device_printf(d, "unit of %s\n", device_get_nameunit(d))); }
"#,
    );
    let dev = k.exec(|| ukern::device::attach("t5nex", 0)) as u64;
    k.call("scratch", "f", [dev, 0, 0, 0]);
    assert_eq!(k.console(), ["t5nex0: unit of t5nex0"]);
    assert_eq!(k.sysctl_get("dev.t5nex.0.v"), Ok(Value::Int(3)));
    k.exec(move || ukern::device::detach(dev as usize));
    assert_eq!(k.sysctl_get("dev.t5nex.0.v"), Err(ENOENT));
    k.kldunload("scratch").unwrap();
    k.shutdown();
}
