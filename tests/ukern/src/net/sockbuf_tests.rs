//! Socket buffers on their own.

use crate::kp::Kp;
use crate::mbuf;
use crate::net::acc::{SockbufExt, SocketExt, Which};
use crate::net::m::{self, MbufExt};
use crate::net::{k, sockbuf, socket, tcp_vars};
use crate::{Config, boot, kpanic, sys};

/// Runs `f` with the receive buffer of a fresh socket locked.
fn with_sb(seed: u64, f: impl FnOnce(Kp<sys::socket>, Kp<sys::sockbuf>) + 'static) {
    let kern = boot(Config::seed(seed));
    kern.exec(move || on_buffer(f));
    kern.shutdown();
}

fn on_buffer(f: impl FnOnce(Kp<sys::socket>, Kp<sys::sockbuf>)) {
    let proto = tcp_vars::TCP_PROTOSW.get::<sys::protosw>().ptr();
    let td = crate::sched::current_thread();
    let Ok(so) = socket::create(crate::vnet::vnet0(), crate::cred0(), proto, td.ptr()) else {
        kpanic!("no socket");
    };
    k::mtx_lock(so.sb_mtx(Which::Rcv));
    f(so, so.rcv());
    k::mtx_unlock(so.sb_mtx(Which::Rcv));
    socket::close(so);
}

fn chain(sb: Kp<sys::sockbuf>) -> Vec<usize> {
    let mut out = Vec::new();
    let mut at = Kp::opt(sb.d().sb_mb);
    while let Some(mb) = at {
        out.push(mb.m_len as usize);
        at = mb.next();
    }
    out
}

fn content(sb: Kp<sys::sockbuf>) -> Vec<u8> {
    let mut out = vec![0; sb.sb_ccc as usize];
    if !out.is_empty() {
        mbuf::copydata(Kp::new(sb.d().sb_mb).b().ptr(), 0, &mut out);
    }
    out
}

fn small(data: &[u8]) -> Kp<sys::mbuf> {
    m::from_bytes(data)
}

#[test]
fn small_mbufs_share_storage_and_large_ones_do_not() {
    with_sb(1, |_, sb| {
        for i in 0..5 {
            sockbuf::append_stream_locked(sb, small(&[i; 20]));
        }
        assert_eq!(chain(sb), [100]);
        assert_eq!(sb.sb_mbcnt, 256);
        sockbuf::append_stream_locked(sb, small(&[9; 4000]));
        assert_eq!(chain(sb), [100, 4000]);
        assert_eq!((sb.sb_ccc, sb.sb_acc), (4100, 4100));
        assert_eq!(sb.sb_mbcnt, 256 + 256 + 4096);
        assert_eq!(content(sb)[95..105], [4, 4, 4, 4, 4, 9, 9, 9, 9, 9]);
    });
}

#[test]
fn nocoalesce_keeps_every_mbuf() {
    with_sb(2, |_, sb| {
        sb.set_flags(sys::SB_NOCOALESCE, 0);
        for i in 0..3 {
            sockbuf::append_stream_locked(sb, small(&[i; 10]));
        }
        assert_eq!(chain(sb), [10, 10, 10]);
    });
}

#[test]
fn empty_mbufs_are_dropped_on_the_way_in() {
    with_sb(3, |_, sb| {
        let head = small(b"ab");
        head.set_next(Some(small(b"")));
        head.next().unwrap().set_next(Some(small(b"cd")));
        sockbuf::append_stream_locked(sb, head);
        assert_eq!(content(sb), b"abcd");
        assert_eq!(chain(sb).iter().filter(|n| **n == 0).count(), 0);
    });
}

#[test]
fn dropping_takes_bytes_off_the_front() {
    with_sb(4, |_, sb| {
        sb.set_flags(sys::SB_NOCOALESCE, 0);
        for i in 0..4 {
            sockbuf::append_stream_locked(sb, small(&[i; 100]));
        }
        sockbuf::drop_locked(sb, 150);
        assert_eq!(chain(sb), [50, 100, 100]);
        assert_eq!((sb.sb_ccc, sb.sb_acc, sb.sb_mbcnt), (250, 250, 3 * 256));
        sockbuf::drop_locked(sb, 0);
        let cut = sockbuf::cut_locked(sb, 150).unwrap();
        assert_eq!(m::chain_len(cut), 150);
        m::freem(cut);
        assert_eq!(chain(sb), [100]);
        sockbuf::drop_locked(sb, 100);
        assert!(
            sb.d().sb_mb.is_null() && sb.d().sb_mbtail.is_null() && sb.d().sb_lastrecord.is_null()
        );
    });
}

#[test]
fn the_send_pointer_follows_drops() {
    with_sb(5, |_, sb| {
        sb.set_flags(sys::SB_NOCOALESCE, 0);
        for i in 0..4 {
            sockbuf::append_stream_locked(sb, small(&[i; 100]));
        }
        // As a driver keeps it: the mbuf with the first unsent byte and its offset.
        let second = Kp::new(sb.d().sb_mb).next().unwrap().next().unwrap();
        let mut d = sb.d();
        d.sb_sndptr = second.ptr();
        d.sb_sndptroff = 200;
        sockbuf::drop_locked(sb, 130);
        assert_eq!(sb.d().sb_sndptr, second.ptr());
        assert_eq!(sb.d().sb_sndptroff, 70);
        sockbuf::drop_locked(sb, 100);
        assert!(
            sb.d().sb_sndptr == second.ptr(),
            "30 of its bytes are gone, it is not"
        );
        sockbuf::drop_locked(sb, 70);
        assert!(sb.d().sb_sndptr.is_null());
        assert_eq!(sb.d().sb_sndptroff, 0);
    });
}

#[test]
fn unready_data_is_used_but_not_available() {
    with_sb(6, |_, sb| {
        sb.set_flags(sys::SB_NOCOALESCE, 0);
        sockbuf::append_stream_locked(sb, small(&[1; 10]));
        let late = small(&[2; 20]);
        let mut b = late.b();
        let f = b.flags() | sys::M_PROTO1;
        b.set_flags(f);
        sockbuf::append_stream_locked(sb, late);
        sockbuf::append_stream_locked(sb, small(&[3; 30]));
        assert_eq!((sb.sb_ccc, sb.sb_acc), (60, 10));
        sockbuf::drop_locked(sb, 10);
        assert_eq!((sb.sb_ccc, sb.sb_acc), (50, 0));
        sockbuf::drop_locked(sb, 20);
        assert_eq!(
            (sb.sb_ccc, sb.sb_acc),
            (30, 30),
            "what stood behind became available"
        );
    });
}

#[test]
fn space_counts_bytes_and_mbufs() {
    with_sb(7, |so, sb| {
        assert!(sockbuf::reserve_locked(so, Which::Rcv, 1000));
        assert_eq!((sb.sb_hiwat, sb.sb_mbmax, sb.space()), (1000, 8000, 1000));
        sockbuf::append_stream_locked(sb, small(&[0; 1500]));
        assert_eq!(sb.space(), -500);
        sockbuf::flush_locked(sb);
        sb.set_flags(sys::SB_NOCOALESCE, 0);
        for _ in 0..40 {
            sockbuf::append_stream_locked(sb, small(&[0; 1]));
        }
        assert_eq!(
            sb.space(),
            8000 - 40 * 256,
            "many small mbufs use the room up"
        );
        assert!(!sockbuf::reserve_locked(so, Which::Rcv, 100 << 20));
        sockbuf::release_locked(so, Which::Rcv);
        assert_eq!((sb.sb_hiwat, sb.sb_mbmax), (0, 0));
    });
}

#[test]
fn unmapped_pages_are_never_merged_into() {
    with_sb(8, |_, sb| {
        let page = crate::phys::alloc_run(1).unwrap();
        let pg = unmapped(page, 300);
        sockbuf::append_stream_locked(sb, small(b"before"));
        sockbuf::append_stream_locked(sb, Kp::new(pg.ptr().cast()));
        sockbuf::append_stream_locked(sb, small(b"after"));
        assert_eq!(chain(sb), [6, 300, 5]);
        let all = content(sb);
        assert_eq!((&all[..7], &all[305..]), (&b"beforeP"[..], &b"Pafter"[..]));
        sockbuf::flush_locked(sb);
        crate::phys::free_run(page);
    });
}

/// An unmapped mbuf of `len` bytes in that page, 96 bytes from its start.
fn unmapped(page: usize, len: u16) -> Kp<mbuf::Mbuf> {
    let mut pg = mbuf::alloc_ext_pgs(sys::M_NOWAIT as i32, Some(free_nothing), 0).unwrap();
    crate::kp::bytes_mut(page as *mut u8, 4096).fill(b'P');
    let mut e = mbuf::epg(pg);
    (e.npgs, e.first_off, e.last_len) = (1, 96, len);
    pg.ext.buf = page;
    pg.ext.size = 4096;
    pg.len = i32::from(len);
    pg
}

#[test]
fn short_unmapped_mbufs_are_copied_unless_shared() {
    with_sb(8, |_, sb| {
        sb.set_flags(sys::SB_NOCOALESCE, 0);
        let page = crate::phys::alloc_run(1).unwrap();
        for (len, shared, copied) in [
            (mbuf::MLEN + 1, false, false),
            (mbuf::MLEN, false, true),
            (mbuf::MLEN, true, false),
        ] {
            let mut pg = unmapped(page, len as u16);
            pg.ext.cnt += usize::from(shared);
            sockbuf::append_stream_locked(sb, Kp::new(pg.ptr().cast()));
            pg.ext.cnt -= usize::from(shared);
            assert_eq!(pg.has(sys::M_EXTPG), !copied, "{len}");
            assert_eq!(pg.has(sys::M_EXT), !copied, "{len}");
        }
        assert_eq!(content(sb), vec![b'P'; 3 * mbuf::MLEN + 1]);
        sockbuf::flush_locked(sb);
        crate::phys::free_run(page);
    });
}

extern "C" fn free_nothing(_m: Kp<mbuf::Mbuf>) {}

fn panics(f: impl FnOnce(Kp<sys::socket>, Kp<sys::sockbuf>) + 'static) -> String {
    let kern = boot(Config::seed(9));
    kern.expect_panic(move || on_buffer(f))
}

#[test]
fn mistakes_are_caught() {
    let r = panics(|_, sb| sockbuf::drop_locked(sb, 1));
    assert!(r.contains("sbdrop: 1 bytes of 0"), "{r}");
    let r = panics(|so, sb| {
        k::mtx_unlock(so.sb_mtx(Which::Rcv));
        sockbuf::append_stream_locked(sb, small(b"x"));
    });
    assert!(r.contains("\"so_rcv\" not owned"), "{r}");
    let r = panics(|_, mut sb| {
        sb.sb_ccc = 5;
        sockbuf::append_stream_locked(sb, small(b"x"));
    });
    assert!(r.contains("chain has 1 bytes"), "{r}");
}
