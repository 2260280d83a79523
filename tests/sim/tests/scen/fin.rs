//! Hazard 10: ends of streams.

use toehold_core::errno::Errno;
use toehold_core::os::TcpState;
use toehold_sim::world::EndConf;

use crate::help::{
    MS, SEC, US, buf, bufs, finish, got, pair, pair_with, patient, placed, posted, quiet, read,
    send, sent, wait, write,
};

#[test]
fn with_bytes_in_both_slots() {
    let (mut w, a, b) = pair_with(patient(), 1, Default::default(), Default::default());
    let ids = posted(&mut w, b, 2, 4096);
    write(&mut w, a, 6_000);
    w.run_until("queued", SEC, |w| sent(w, a) == 6_000);
    w.shutdown_wr(a);
    assert_eq!(wait(&mut w, b, ids[0]), Ok(4096));
    assert_eq!(wait(&mut w, b, ids[1]), Ok(1904));
    let id = read(&mut w, b, 4096);
    assert_eq!(wait(&mut w, b, id), Ok(0));
    finish(w, a, b);
}

#[test]
fn with_a_read_queued_and_none_active() {
    let (mut w, a, b) = pair(2);
    let id = read(&mut w, b, 4096);
    w.shutdown_wr(a);
    assert_eq!(wait(&mut w, b, id), Ok(0));
    finish(w, a, b);
}

#[test]
fn before_the_pages_are_held() {
    let (mut w, a, b) = pair(3);
    w.lat.hold = (10 * MS, 10 * MS);
    let ids: Vec<_> = (0..3).map(|_| read(&mut w, b, 4096)).collect();
    w.write(a, 5_000);
    w.shutdown_wr(a);
    assert_eq!(wait(&mut w, b, ids[0]), Ok(4096));
    assert_eq!(wait(&mut w, b, ids[1]), Ok(904));
    assert_eq!(wait(&mut w, b, ids[2]), Ok(0));
    finish(w, a, b);
}

#[test]
fn the_last_one_with_data_unread() {
    // Both directions are shut: the peer's FIN is the connection's last word. Reads that wait for
    // their pages still get what so_rcv has.
    let (mut w, a, b) = pair(4);
    w.shutdown_wr(b);
    w.run_for(MS);
    w.lat.hold = (10 * MS, 10 * MS);
    let ids: Vec<_> = (0..3).map(|_| read(&mut w, b, 4096)).collect();
    w.write(a, 5_000);
    w.shutdown_wr(a);
    assert_eq!(wait(&mut w, b, ids[0]), Ok(4096));
    assert_eq!(wait(&mut w, b, ids[1]), Ok(904));
    assert_eq!(wait(&mut w, b, ids[2]), Ok(0));
    finish(w, a, b);
}

#[test]
fn the_last_one_with_a_reader_inside_the_lock() {
    for seed in 0..20 {
        let mut cfg = patient();
        cfg.faults.indicate_ppm = 500_000;
        cfg.faults.wr_jitter = 20 * US;
        cfg.seed = seed;
        let (mut w, a, b) = pair_with(cfg, seed, Default::default(), Default::default());
        w.shutdown_wr(b);
        let dst = bufs(&mut w, b, 3, 8192);
        crate::help::post(&mut w, b, &dst);
        write(&mut w, a, 30_000);
        w.run_until("queued", SEC, |w| sent(w, a) == 30_000);
        w.run_for(seed * 3 * US);
        w.ends[b].os.short.io = 900;
        w.ends[b].os.short.mbuf = 900;
        w.shutdown_wr(a);
        w.run_for(2 * MS);
        w.ends[b].os.short = Default::default();
        while got(&w, b) < 30_000 {
            crate::help::post(&mut w, b, &dst);
            assert!(w.step(), "{}", w.story());
        }
        finish(w, a, b);
    }
}

#[test]
fn and_a_reset_race() {
    for at in 0..20 {
        let (mut w, a, b) = pair(5);
        posted(&mut w, b, 2, 4096);
        write(&mut w, a, 1_000);
        w.shutdown_wr(a);
        w.run_for(at * US);
        w.reset(a);
        quiet(&mut w, a);
        quiet(&mut w, b);
        finish(w, a, b);
    }
}

#[test]
fn data_for_a_closed_socket_resets() {
    let (mut w, a, b) = pair(6);
    write(&mut w, a, 100_000);
    w.run_for(30 * US);
    w.close(b);
    quiet(&mut w, a);
    w.run_until("reset", 10 * SEC, |w| w.ends[a].broken.is_some());
    finish(w, a, b);
}

#[test]
fn a_shut_window_of_a_closed_socket_opens() {
    // The peer waits at a window of 0 when the reader goes: it must hear of it (I9).
    let c = EndConf {
        rcv: 24 << 10,
        ..EndConf::default()
    };
    for half in [false, true] {
        let (mut w, a, b) = pair_with(t5sim::Config::default(), 7, c, c);
        write(&mut w, a, 1 << 20);
        w.run_for(5 * MS);
        assert_eq!(w.ends[b].os.sock.rcv.len(), 24 << 10);
        if half {
            w.shutdown_wr(b);
            w.run_for(MS);
        }
        w.close(b);
        quiet(&mut w, a);
        finish(w, a, b);
    }
}

#[test]
fn half_close_with_writes_pending() {
    let (mut w, a, b) = pair(8);
    let ids: Vec<_> = (0..4).map(|_| write(&mut w, a, 200_000)).collect();
    w.shutdown_wr(b);
    let eof = read(&mut w, a, 100);
    assert_eq!(wait(&mut w, a, eof), Ok(0));
    let dst = bufs(&mut w, b, 2, 100_000);
    send(&mut w, a, b, &ids, &dst);
    for id in ids {
        assert_eq!(w.result(a, id), Some(Ok(200_000)));
    }
    let id = write(&mut w, a, 1000);
    send(&mut w, a, b, &[id], &dst);
    assert_eq!(got(&w, b), sent(&w, a));
    finish(w, a, b);
}

#[test]
fn calls_in_time_wait() {
    let (mut w, a, b) = pair(9);
    w.shutdown_wr(a);
    w.run_for(MS);
    w.shutdown_wr(b);
    w.run_for(MS);
    assert_eq!(w.ends[a].os.tcb.state, TcpState::TimeWait);
    let r = read(&mut w, a, 100);
    let t = write(&mut w, a, 100);
    assert_eq!(wait(&mut w, a, r), Ok(0));
    assert_eq!(wait(&mut w, a, t), Err(Errno::EPIPE));
    finish(w, a, b);
}

#[test]
fn simultaneous_close() {
    let (mut w, a, b) = pair(10);
    let x = posted(&mut w, a, 2, 4096);
    let y = posted(&mut w, b, 2, 4096);
    write(&mut w, a, 3_000);
    write(&mut w, b, 3_000);
    w.run_until("queued", SEC, |w| {
        sent(w, a) == 3_000 && sent(w, b) == 3_000
    });
    w.shutdown_wr(a);
    w.shutdown_wr(b);
    for (e, ids) in [(a, x), (b, y)] {
        assert_eq!(wait(&mut w, e, ids[0]), Ok(3_000));
        assert_eq!(wait(&mut w, e, ids[1]), Ok(0));
    }
    finish(w, a, b);
}

#[test]
fn the_fin_waits_for_the_data() {
    let (mut w, a, b) = pair(11);
    let src = buf(&mut w, a, 200_000);
    let id = w.aio_write(a, src, 0, 200_000);
    w.run_until("queued", SEC, |w| sent(w, a) == 200_000);
    w.shutdown_wr(a);
    let dst = bufs(&mut w, b, 3, 50_000);
    send(&mut w, a, b, &[id], &dst);
    assert_eq!(w.result(a, id), Some(Ok(200_000)));
    w.run_until("end", SEC, |w| w.ends[b].eof);
    finish(w, a, b);
}

#[test]
fn shutdown_of_reading_with_buffers_posted() {
    let (mut w, a, b) = pair_with(patient(), 12, Default::default(), Default::default());
    posted(&mut w, b, 2, 64 << 10);
    write(&mut w, a, 5_000);
    w.run_until("placed", SEC, |w| placed(w, b) == 5_000);
    w.shutdown_rd(b);
    quiet(&mut w, b);
    write(&mut w, a, 500_000);
    quiet(&mut w, a);
    finish(w, a, b);
}

#[test]
fn stray_segments_after_both_ends() {
    // Everything comes twice, the second time late, when both ends have forgotten.
    for seed in 0..5 {
        let (mut w, a, b) = pair(seed);
        w.card.set_faults(t5sim::Faults {
            dup_ppm: 500_000,
            reorder_ppm: 500_000,
            reorder_delay: 300 * US,
            ..Default::default()
        });
        write(&mut w, a, 20_000);
        w.run_for(50 * US);
        w.read(b, 1 << 20);
        let ids = w.jobs(a);
        for id in ids {
            let _ = wait(&mut w, a, id);
        }
        w.shutdown_wr(a);
        w.shutdown_wr(b);
        w.run_for(5 * MS);
        finish(w, a, b);
    }
}
