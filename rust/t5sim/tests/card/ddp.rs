use crate::rig::*;
use t5sim::Config;
use wire::{DdpVld, Opcode};

/// Connection with DDP on; nothing posted.
fn setup(cfg: Config) -> (Rig, u32, u32) {
    let mut r = Rig::new(cfg);
    let (a, b) = r.connect_ddp();
    (r, a, b)
}

fn one_segment() -> Config {
    Config {
        seg_min: 65_535,
        seg_max: 65_535,
        ..Config::default()
    }
}

#[test]
fn one_buffer_is_filled() {
    let (mut r, a, b) = setup(Config::default());
    let buf = r.arm_new(b, 0, 0, 100_000, true);
    r.send_pattern(a, 1, 0, 100_000);
    r.wait_ddp(b, 1);
    let (rep, n, vld) = r.recv[&b].ddp[0];
    assert_eq!(n, 100_000);
    assert!(rep.inv && rep.buf_complete && !rep.buf_timed_out);
    assert_eq!(rep.buf_idx, 0);
    assert!(!vld.has_error());
    assert_eq!(vld.ulp_mode(), 5);
    assert!(r.read_buf(&buf) == pattern(1, 0, 100_000));
    assert!(r.recv[&b].data.is_empty());
    let d = r.card.connection(b).unwrap().ddp;
    assert!(!d.bufs[0].valid);
    assert_eq!(d.active, 1);
    assert_eq!(
        (r.card.stats().ddp_bytes, r.card.stats().cpl_bytes),
        (100_000, 0)
    );
    assert_eq!(r.card.stats().pods_written, 7);
}

#[test]
fn report_names_the_last_placement() {
    let (mut r, a, b) = setup(Config {
        seg_min: 3000,
        seg_max: 3000,
        ..Config::default()
    });
    r.arm_new(b, 0, 0, 10_000, true);
    r.send_pattern(a, 1, 0, 10_000);
    r.wait_ddp(b, 1);
    let m = r.wait_tid(Opcode::RxDataDdp, b);
    let d = wire::RxDataDdp::parse(&m.cpl).unwrap();
    // Three of 3000 and one of 1000, which is what the message is about.
    assert_eq!((d.len, d.seq, d.report.offset), (1000, 1001 + 9000, 9000));
    assert_eq!(m.rxq, RXQ_B);
}

#[test]
fn two_buffers_in_turn() {
    let (mut r, a, b) = setup(Config::default());
    let b0 = r.arm_new(b, 0, 0, 50_000, true);
    let b1 = r.arm_new(b, 1, 100, 70_000, false);
    r.send_pattern(a, 1, 0, 120_000);
    r.wait_ddp(b, 2);
    let d = &r.recv[&b].ddp;
    assert_eq!((d[0].0.buf_idx, d[0].1), (0, 50_000));
    assert_eq!((d[1].0.buf_idx, d[1].1), (1, 70_000));
    assert!(r.read_buf(&b0) == pattern(1, 0, 50_000));
    assert!(r.read_buf(&b1) == pattern(1, 50_000, 70_000));
    assert_eq!(r.card.connection(b).unwrap().ddp.active, 0);
}

#[test]
fn a_stream_through_two_buffers_posted_again_and_again() {
    let (mut r, a, b) = setup(Config {
        seed: 9,
        ..Config::default()
    });
    let size = 30_000_u32;
    let bufs = [r.buffer(size, 0, 0), r.buffer(size, 0, 0)];
    let tags = [r.write_pods(b, 0, &bufs[0]), r.write_pods(b, 64, &bufs[1])];
    r.arm(b, 0, tags[0], 0, size, true);
    r.arm(b, 1, tags[1], 0, size, false);
    let total = 40 * size as usize;
    r.send_pattern(a, 1, 0, total);
    let mut got = Vec::new();
    let mut seen = 0;
    while got.len() < total {
        r.wait_ddp(b, seen + 1);
        let (rep, n, _) = r.recv[&b].ddp[seen];
        seen += 1;
        let i = usize::from(rep.buf_idx);
        assert_eq!(i, (seen - 1) % 2);
        let mem = r.read_buf(&bufs[i]);
        got.extend_from_slice(&mem[..n as usize]);
        // Slot 0 names itself active only if the other is not posted, which it always is here.
        r.arm(b, i, tags[i], 0, size, false);
    }
    assert!(got == pattern(1, 0, total));
    assert_eq!(r.card.stats().cpl_bytes, 0, "everything was placed");
}

#[test]
fn odd_offsets_and_lengths_on_every_page_size() {
    for pgsz in 0..4_u8 {
        for (off, len) in [(1, 4095), (4095, 2), (123, 100_001), (0, 1), (4000, 70_000)] {
            let (mut r, a, b) = setup(Config {
                seed: 3,
                ..Config::default()
            });
            let buf = r.buffer(len, off, pgsz);
            let tag = r.write_pods(b, 5, &buf);
            r.arm(b, 0, tag, 0, len, true);
            r.send_pattern(a, 1, 0, len as usize);
            r.wait_ddp(b, 1);
            assert!(
                r.read_buf(&buf) == pattern(1, 0, len as usize),
                "{pgsz} {off} {len}"
            );
            assert_eq!(r.card.stats().ddp_errors, 0);
        }
    }
}

#[test]
fn pods_elsewhere_in_adapter_memory() {
    let (mut r, a, b) = setup(Config {
        ddp_start: 0x10_0000,
        ..Config::default()
    });
    let buf = r.arm_new(b, 0, 77, 40_000, true);
    r.send_pattern(a, 1, 0, 40_000);
    r.wait_ddp(b, 1);
    assert!(r.read_buf(&buf) == pattern(1, 0, 40_000));
}

#[test]
fn the_fifth_address_is_used_across_pods() {
    let (mut r, a, b) = setup(one_segment());
    let buf = r.buffer(8 * 4096, 0, 0);
    let tag = r.write_pods(b, 0, &buf);
    // Spoil the fifth address of the first pod: a placement that runs over the pod's end goes
    // wrong, so it was read.
    let bad = r.alloc(4096, 4096);
    let pod = wire::PagePod {
        valid: true,
        tid: b,
        tag,
        len: buf.len,
        offset: 0,
        addrs: [buf.pages[0], buf.pages[1], buf.pages[2], buf.pages[3], bad],
    };
    let mut m = wire::UlpTxMemWrite {
        addr: 0,
        pods: [wire::PagePod::default(); 4],
        count: 1,
    };
    m.pods[0] = pod;
    let mut wr = vec![0; wire::UlpTxMemWrite::len(1)];
    m.emit(r.chip, &mut wr).unwrap();
    r.submit(CTRL, &wr);
    r.arm(b, 0, tag, 0, buf.len, true);
    r.send_pattern(a, 1, 0, 8 * 4096);
    r.wait_ddp(b, 1);
    assert_eq!(r.mem(bad, 4096).to_vec(), pattern(1, 4 * 4096, 4096));
    assert_eq!(
        r.mem(buf.pages[5], 4096).to_vec(),
        pattern(1, 5 * 4096, 4096)
    );
}

#[test]
fn posting_at_an_offset() {
    // The host copied the first 7000 bytes itself; the rest is placed behind them.
    let (mut r, a, b) = setup(Config::default());
    let buf = r.buffer(20_000, 300, 0);
    let tag = r.write_pods(b, 0, &buf);
    r.arm(b, 0, tag, 7_000, 20_000, true);
    r.send_pattern(a, 1, 0, 13_000);
    r.wait_ddp(b, 1);
    assert_eq!(r.recv[&b].ddp[0].1, 13_000);
    let mem = r.read_buf(&buf);
    assert!(mem[..7_000].iter().all(|&x| x == 0xee));
    assert!(mem[7_000..] == pattern(1, 0, 13_000));
}

#[test]
fn buffers_of_8_mib_and_more_in_slot_1() {
    let (mut r, a, b) = setup(Config {
        seg_min: 60_000,
        seg_max: 65_535,
        ..Config::default()
    });
    r.check_every(500);
    let small = r.arm_new(b, 0, 4000, 10, true);
    let len = 9 << 20;
    let buf = r.buffer(len, 0, 3);
    let tag = r.write_pods(b, 0, &buf);
    let at = (8 << 20) + 4097;
    r.arm(b, 1, tag, at, len, false);
    let n = (len - at) as usize;
    r.send_pattern(a, 1, 0, 10 + n);
    r.wait_ddp(b, 2);
    assert_eq!(r.read_buf(&small), pattern(1, 0, 10));
    assert_eq!(r.recv[&b].ddp[1].1 as usize, n);
    let mem = r.read_buf(&buf);
    assert!(mem[at as usize..] == pattern(1, 10, n));
}

fn error_of(spoil: impl Fn(&mut Rig, u32, &mut wire::PagePod)) -> (DdpVld, t5sim::Stats) {
    let (mut r, a, b) = setup(Config::default());
    let buf = r.buffer(9_000, 0, 0);
    let tag = r.write_pods(b, 0, &buf);
    let mut pod = wire::PagePod {
        valid: true,
        tid: b,
        tag,
        len: buf.len,
        offset: 0,
        addrs: [buf.pages[0], buf.pages[1], buf.pages[2], 0, 0],
    };
    spoil(&mut r, b, &mut pod);
    let mut m = wire::UlpTxMemWrite {
        addr: 0,
        pods: [wire::PagePod::default(); 4],
        count: 1,
    };
    m.pods[0] = pod;
    let mut wr = vec![0; wire::UlpTxMemWrite::len(1)];
    m.emit(r.chip, &mut wr).unwrap();
    r.submit(CTRL, &wr);
    r.arm(b, 0, tag, 0, 9_000, true);
    let writes = r.b.writes;
    r.send_pattern(a, 1, 0, 9_000);
    r.wait_ddp(b, 1);
    assert!(r.recv[&b].ddp[0].2.has_error());
    assert!(r.recv[&b].ddp[0].0.inv);
    assert_eq!(
        r.b.writes, writes,
        "nothing is written by a refused placement"
    );
    assert!(r.read_buf(&buf).iter().all(|&x| x == 0xee));
    (r.recv[&b].ddp[0].2, *r.card.stats())
}

#[test]
fn invalid_pod() {
    let (v, s) = error_of(|_, _, p| p.valid = false);
    assert!(v.contains(DdpVld::INVALID_PPOD));
    assert_eq!((s.invalid_pod, s.ddp_errors, s.ddp_bytes), (1, 1, 0));
}

#[test]
fn pod_of_another_connection() {
    let (v, s) = error_of(|_, b, p| p.tid = b + 1);
    assert!(v.contains(DdpVld::TID_MISMATCH));
    assert_eq!(s.tid_mismatch, 1);
}

#[test]
fn pod_of_another_tag_or_page_size() {
    let (v, s) = error_of(|_, _, p| p.tag ^= 1 << 12);
    assert!(v.contains(DdpVld::PPOD_MISMATCH));
    assert_eq!(s.tag_mismatch, 1);
    assert!(
        error_of(|_, _, p| p.tag ^= 1 << 30)
            .0
            .contains(DdpVld::PPOD_MISMATCH)
    );
}

#[test]
fn pod_of_another_color() {
    let (v, s) = error_of(|_, _, p| p.tag ^= 5);
    assert!(v.contains(DdpVld::COLOR_ERR));
    assert_eq!(s.tag_mismatch, 1);
}

#[test]
fn pod_shorter_than_the_placement() {
    let (v, s) = error_of(|_, _, p| p.len = 100);
    assert!(v.contains(DdpVld::ULIMIT_ERR));
    assert_eq!(s.over_limit, 1);
}

#[test]
fn tag_outside_the_region() {
    let (mut r, a, b) = setup(Config {
        ppods: 64,
        ..Config::default()
    });
    r.arm(b, 0, wire::PpodTag::new(0, 64 * 64).0, 0, 9_000, true);
    r.send_pattern(a, 1, 0, 9_000);
    r.wait_ddp(b, 1);
    assert!(r.recv[&b].ddp[0].2.contains(DdpVld::INVALID_TAG));
}

#[test]
fn stale_tag_on_demand() {
    let (mut r, a, b) = setup(Config::default());
    r.arm_new(b, 0, 0, 9_000, true);
    r.run(5_000);
    assert!(r.card.stale_tag(b, 0));
    r.send_pattern(a, 1, 0, 9_000);
    r.wait_ddp(b, 1);
    assert!(r.recv[&b].ddp[0].2.has_error());
}

#[test]
fn pods_outside_the_region_are_the_hosts_error() {
    let mut r = Rig::new(Config {
        ppods: 4,
        ..Config::default()
    });
    let mut m = wire::UlpTxMemWrite {
        addr: 3 * 64,
        pods: [wire::PagePod::default(); 4],
        count: 2,
    };
    let mut wr = vec![0; wire::UlpTxMemWrite::len(2)];
    m.emit(r.chip, &mut wr).unwrap();
    r.submit(CTRL, &wr);
    m.addr = 2 * 64;
    m.emit(r.chip, &mut wr).unwrap();
    r.submit(CTRL, &wr);
    r.idle();
    assert_eq!(
        (r.card.stats().host_errors, r.card.stats().pods_written),
        (1, 2)
    );
}

// Push.

#[test]
fn psh_hands_a_partly_filled_buffer_back() {
    let (mut r, a, b) = setup(Config::default());
    let buf = r.arm_new(b, 0, 0, 50_000, true);
    r.send_pattern(a, 1, 0, 12_345);
    r.wait_ddp(b, 1);
    let (rep, n, _) = r.recv[&b].ddp[0];
    assert_eq!(n, 12_345);
    assert!(rep.inv && rep.psh && !rep.buf_complete);
    assert!(r.read_buf(&buf)[..12_345] == pattern(1, 0, 12_345));
    assert!(!r.card.connection(b).unwrap().ddp.bufs[0].valid);
    assert_eq!(r.card.stats().ddp_partial, 1);
}

#[test]
fn without_psh_a_buffer_waits() {
    let (mut r, a, b) = setup(Config::default());
    r.arm_new(b, 0, 0, 50_000, true);
    let addr = r.alloc_with(&pattern(1, 0, 10_000), 64);
    let wr = r.sgl_wr(a, &[(addr, 10_000)], false, true);
    r.queue_wr(a, wr, 10_000);
    r.run(50_000_000);
    assert!(r.recv[&b].ddp.is_empty());
    assert_eq!(r.card.connection(b).unwrap().ddp.bufs[0].offset, 10_000);
    assert_eq!(r.flows[&a].done, 10_000, "placed bytes are acknowledged");
}

#[test]
fn push_timer_hands_the_buffer_back_later() {
    let (mut r, a, b) = setup(Config {
        push_timer: 100_000,
        ..Config::default()
    });
    let buf = r.arm_new(b, 0, 0, 50_000, true);
    r.send_pattern(a, 1, 0, 10_000);
    r.run(60_000);
    assert!(r.recv[&b].ddp.is_empty());
    r.send_pattern(a, 1, 10_000, 5_000);
    r.wait_ddp(b, 1);
    let m = r.wait_tid(Opcode::RxDdpComplete, b);
    let d = wire::RxDdpComplete::parse(&m.cpl).unwrap();
    assert_eq!(d.rcv_nxt, 1001 + 15_000);
    // The end offset, here, not the start of a placement.
    assert_eq!(d.report.offset, 15_000);
    assert!(d.report.inv && d.report.buf_timed_out);
    assert!(r.read_buf(&buf)[..15_000] == pattern(1, 0, 15_000));
}

#[test]
fn push_disable_keeps_the_buffer() {
    let (mut r, a, b) = setup(Config::default());
    let buf = r.buffer(30_000, 0, 0);
    let tag = r.write_pods(b, 0, &buf);
    r.arm_flags(b, 0, tag, 0, 30_000, true, wire::TF_DDP_PUSH_DISABLE_0);
    r.send_pattern(a, 1, 0, 10_000);
    r.run(10_000_000);
    assert!(r.recv[&b].ddp.is_empty());
    r.send_pattern(a, 1, 10_000, 20_000);
    r.wait_ddp(b, 1);
    assert_eq!(r.recv[&b].ddp[0].1, 30_000);
}

#[test]
fn pshf_enable_beats_the_push_timer() {
    let (mut r, a, b) = setup(Config {
        push_timer: 10_000_000,
        ..Config::default()
    });
    let buf = r.buffer(30_000, 0, 0);
    let tag = r.write_pods(b, 0, &buf);
    r.arm_flags(b, 0, tag, 0, 30_000, true, wire::TF_DDP_PSHF_ENABLE_0);
    let t0 = r.now;
    r.send_pattern(a, 1, 0, 1_000);
    r.wait_ddp(b, 1);
    assert!(r.now - t0 < 100_000);
}

#[test]
fn psh_no_invalidate_reports_and_goes_on() {
    let (mut r, a, b) = setup(Config::default());
    let buf = r.buffer(30_000, 0, 0);
    let tag = r.write_pods(b, 0, &buf);
    r.arm_flags(b, 0, tag, 0, 30_000, true, wire::TF_DDP_PSH_NO_INVALIDATE0);
    r.send_pattern(a, 1, 0, 10_000);
    r.wait_ddp(b, 1);
    assert!(!r.recv[&b].ddp[0].0.inv);
    r.send_pattern(a, 1, 10_000, 20_000);
    r.wait_ddp(b, 2);
    let (rep, n, _) = r.recv[&b].ddp[1];
    assert!(rep.inv && rep.buf_complete);
    assert_eq!(n, 20_000);
    assert!(r.read_buf(&buf) == pattern(1, 0, 30_000));
}

#[test]
fn flush_hands_back_whatever_comes() {
    let (mut r, a, b) = setup(one_segment());
    let buf = r.buffer(30_000, 0, 0);
    let tag = r.write_pods(b, 0, &buf);
    r.arm_flags(b, 0, tag, 0, 30_000, true, wire::TF_DDP_BUF0_FLUSH);
    let addr = r.alloc_with(&pattern(1, 0, 500), 64);
    let wr = r.sgl_wr(a, &[(addr, 500)], false, true);
    r.queue_wr(a, wr, 500);
    r.wait_ddp(b, 1);
    assert_eq!(r.recv[&b].ddp[0].1, 500);
    assert!(r.recv[&b].ddp[0].0.inv);
}

#[test]
fn flush_set_later_hands_back_what_is_there() {
    let (mut r, a, b) = setup(Config::default());
    r.arm_new(b, 0, 0, 50_000, true);
    let addr = r.alloc_with(&pattern(1, 0, 500), 64);
    let wr = r.sgl_wr(a, &[(addr, 500)], false, true);
    r.queue_wr(a, wr, 500);
    r.run(100_000);
    let flush = wire::TF_DDP_BUF0_FLUSH;
    let u = wire::TcbUpdate {
        word: wire::W_RX_DDP_FLAGS,
        mask: flush,
        value: flush,
    };
    r.set_tcb(b, &u, None);
    r.wait_ddp(b, 1);
    let m = r.wait_tid(Opcode::RxDdpComplete, b);
    assert_eq!(
        wire::RxDdpComplete::parse(&m.cpl).unwrap().report.offset,
        500
    );
    assert_eq!(r.recv[&b].ddp[0].1, 500);
}

// Indicate.

#[test]
fn data_with_no_buffer_is_indicated() {
    let (mut r, a, b) = setup(Config::default());
    let t0 = r.now;
    r.send_pattern(a, 1, 0, 3_000);
    r.recv_bytes(b, 3_000);
    assert_eq!(r.recv[&b].last_ddp_off, Some(false));
    assert!(r.now - t0 >= r.card.config().indicate_hold);
    assert!(r.card.stats().indicates > 0);
}

#[test]
fn data_waits_for_a_buffer_posted_in_time() {
    let (mut r, a, b) = setup(Config::default());
    r.send_pattern(a, 1, 0, 30_000);
    r.run(30_000);
    assert_eq!(r.card.connection(b).unwrap().held, 30_000);
    let buf = r.arm_new(b, 0, 0, 30_000, true);
    r.wait_ddp(b, 1);
    assert!(r.read_buf(&buf) == pattern(1, 0, 30_000));
    assert_eq!(
        (r.card.stats().indicates, r.card.connection(b).unwrap().held),
        (0, 0)
    );
}

#[test]
fn a_small_buffer_takes_what_it_can_of_held_data() {
    let (mut r, a, b) = setup(one_segment());
    r.send_pattern(a, 1, 0, 30_000);
    r.run(30_000);
    let buf = r.arm_new(b, 0, 0, 10_000, true);
    r.wait_ddp(b, 1);
    assert_eq!(r.card.connection(b).unwrap().held, 20_000);
    assert!(r.read_buf(&buf) == pattern(1, 0, 10_000));
    r.recv_bytes(b, 20_000);
    assert!(r.recv[&b].data == pattern(1, 10_000, 20_000));
    assert_eq!(r.recv[&b].nxt, 1001 + 30_000);
}

#[test]
fn indicates_are_cut_to_size() {
    let (mut r, a, b) = setup(Config {
        indicate_size: 200,
        ..one_segment()
    });
    r.send_pattern(a, 1, 0, 1_000);
    r.recv_bytes(b, 200);
    assert_eq!(r.recv[&b].data.len(), 200);
    let buf = r.arm_new(b, 0, 0, 800, true);
    r.wait_ddp(b, 1);
    assert!(r.read_buf(&buf) == pattern(1, 200, 800));
    assert_eq!(r.recv[&b].data, pattern(1, 0, 200));
}

#[test]
fn an_indicate_takes_whole_segments_as_they_fit() {
    let (mut r, a, b) = setup(Config {
        indicate_size: 10_000,
        seg_min: 3_000,
        seg_max: 3_000,
        ..Config::default()
    });
    r.send_pattern(a, 1, 0, 30_000);
    r.recv_bytes(b, 9_000);
    assert_eq!(r.card.stats().indicates, 1);
    assert_eq!(r.recv[&b].data, pattern(1, 0, 9_000));
    let t0 = r.now;
    r.recv_bytes(b, 30_000);
    assert_eq!(r.card.stats().indicates, 4);
    assert_eq!(r.recv[&b].data, pattern(1, 0, 30_000));
    assert!(r.now - t0 >= 2 * r.card.config().indicate_hold);
}

#[test]
fn with_indicates_off_data_waits_for_ever() {
    let (mut r, a, b) = setup(Config::default());
    let both = wire::DdpBuf::B0.flag(wire::TF_DDP_BUF0_INDICATE)
        | wire::DdpBuf::B1.flag(wire::TF_DDP_BUF0_INDICATE);
    let u = wire::TcbUpdate {
        word: wire::W_RX_DDP_FLAGS,
        mask: both,
        value: 0,
    };
    r.set_tcb(b, &u, None);
    r.run(5_000);
    r.send_pattern(a, 1, 0, 30_000);
    r.run(100_000_000);
    assert_eq!(r.recv[&b].data.len(), 0);
    let buf = r.arm_new(b, 0, 0, 30_000, true);
    r.wait_ddp(b, 1);
    assert!(r.read_buf(&buf) == pattern(1, 0, 30_000));
}

#[test]
fn data_before_ddp_is_on_says_so() {
    let mut r = Rig::new(Config::default());
    let (a, b) = r.connect_with(
        &Opts {
            ddp: true,
            ..Opts::default()
        },
        5000,
    );
    r.send_pattern(a, 1, 0, 100);
    r.recv_bytes(b, 100);
    assert_eq!(r.recv[&b].last_ddp_off, Some(true));
    r.ddp_on(b);
    r.send_pattern(a, 1, 100, 100);
    r.recv_bytes(b, 200);
    assert_eq!(r.recv[&b].last_ddp_off, Some(false));
}

#[test]
fn a_plain_connection_can_be_switched_to_ddp() {
    let mut r = Rig::new(Config::default());
    let (a, b) = r.connect();
    r.send_pattern(a, 1, 0, 1000);
    r.recv_bytes(b, 1000);
    let mut wr = vec![0; wire::ulptx::Compound::len(6, 0)];
    let mut c = wire::ulptx::Compound::begin(&mut wr, true, b, RXQ_B).unwrap();
    for u in wire::tcb::ddp_clear() {
        c.set_tcb(&u, None).unwrap();
    }
    c.set_tcb(&wire::tcb::ulp_mode_tcpddp(), None).unwrap();
    c.set_tcb(&wire::tcb::rx_flow_control_ddp(), None).unwrap();
    c.set_tcb(&wire::tcb::ddp_on(), None).unwrap();
    r.submit(CTRL, &wr);
    let buf = r.arm_new(b, 0, 0, 20_000, true);
    r.send_pattern(a, 1, 1000, 20_000);
    r.wait_ddp(b, 1);
    assert!(r.read_buf(&buf) == pattern(1, 1000, 20_000));
    assert!(r.card.tcb(b).unwrap().rx_fc_ddp());
}

// Flow control.

#[test]
fn ddp_bytes_do_not_use_the_window_up() {
    let o = Opts {
        ddp: true,
        rcv_kb: 16,
        ..Opts::default()
    };
    let mut r = Rig::new(Config::default());
    let (a, b) = r.connect_with(&o, 5000);
    r.ddp_on(b);
    let buf = r.arm_new(b, 0, 0, 300_000, true);
    r.send_pattern(a, 1, 0, 300_000);
    r.wait_ddp(b, 1);
    assert!(r.read_buf(&buf) == pattern(1, 0, 300_000));
    assert_eq!(r.card.connection(b).unwrap().rcv_wnd, 16_384);
    assert_eq!(r.card.stats().wrs.rx_data_ack, 0, "no credits were needed");
}

#[test]
fn ddp_bytes_use_the_window_up_without_the_flag() {
    let o = Opts {
        ddp: true,
        fc_ddp: false,
        rcv_kb: 16,
        ..Opts::default()
    };
    let mut r = Rig::new(Config::default());
    let (a, b) = r.connect_with(&o, 5000);
    r.ddp_on(b);
    r.arm_new(b, 0, 0, 300_000, true);
    r.send_pattern(a, 1, 0, 300_000);
    r.run(10_000_000);
    assert_eq!(r.card.stats().ddp_bytes, 16_384);
    r.rx_ack(b, 300_000);
    r.wait_ddp(b, 1);
}

// Invalidate.

/// Places 5000 bytes without PSH, then invalidates; gives the old value of the reply.
fn invalidated(which: usize) -> (u32, bool) {
    let (mut r, a, b) = setup(Config::default());
    let first = r.arm_new(b, 0, 0, if which == 0 { 50_000 } else { 100 }, true);
    let second = r.arm_new(b, 1, 100, 50_000, false);
    let lead = if which == 0 { 0 } else { 100 };
    let addr = r.alloc_with(&pattern(1, 0, lead + 5_000), 64);
    let wr = r.sgl_wr(a, &[(addr, lead as u32 + 5_000)], false, true);
    r.queue_wr(a, wr, lead as u64 + 5_000);
    r.run(1_000_000);
    r.invalidate(b, which);
    let m = r.wait_tid(Opcode::SetTcbRpl, b);
    assert_eq!(m.rxq, RXQ_B);
    let rpl = wire::SetTcbRpl::parse(&m.cpl).unwrap();
    assert_eq!(usize::from(rpl.cookie), 2 + which);
    assert!(rpl.status.is_ok());
    let buf = if which == 0 { &first } else { &second };
    assert!(r.read_buf(buf)[..5_000] == pattern(1, lead as u64, 5_000));
    assert!(!r.card.connection(b).unwrap().ddp.bufs[which].valid);
    assert_eq!(r.card.stats().invalidates, 1);
    wire::tcb::reached(wire::DdpBuf::from_index(which), rpl.oldval)
}

#[test]
fn invalidate_tells_how_much_was_placed() {
    assert_eq!(invalidated(0), (5_000, true));
    assert_eq!(invalidated(1), (5_000, true));
}

#[test]
fn after_an_invalidate_the_other_buffer_is_filled() {
    let (mut r, a, b) = setup(Config::default());
    let first = r.arm_new(b, 0, 0, 50_000, true);
    let second = r.arm_new(b, 1, 100, 20_000, false);
    r.invalidate(b, 0);
    r.wait_tid(Opcode::SetTcbRpl, b);
    r.send_pattern(a, 1, 0, 20_000);
    r.wait_ddp(b, 1);
    assert_eq!(r.recv[&b].ddp[0].0.buf_idx, 1);
    assert!(r.read_buf(&second) == pattern(1, 0, 20_000));
    assert!(r.read_buf(&first).iter().all(|&x| x == 0xee));
}

#[test]
fn next_data_after_an_invalidate_tells_the_gap() {
    let (mut r, a, b) = setup(Config::default());
    r.arm_new(b, 0, 0, 50_000, true);
    let addr = r.alloc_with(&pattern(1, 0, 8_000), 64);
    let wr = r.sgl_wr(a, &[(addr, 5_000)], false, true);
    r.queue_wr(a, wr, 5_000);
    r.run(100_000);
    r.invalidate(b, 0);
    r.wait_tid(Opcode::SetTcbRpl, b);
    let wr = r.sgl_wr(a, &[(addr + 5_000, 3_000)], true, true);
    r.queue_wr(a, wr, 3_000);
    r.recv_bytes(b, 3_000);
    let m = r.wait_tid(Opcode::RxData, b);
    assert_eq!(wire::RxData::parse(&m.cpl).unwrap().seq, 1001 + 5_000);
    assert!(r.recv[&b].data == pattern(1, 5_000, 3_000));
}

#[test]
fn invalidate_racing_data_never_loses_a_byte() {
    for seed in 0..60 {
        let mut cfg = Config {
            seed,
            seg_min: 500,
            seg_max: 3_000,
            ..Config::default()
        };
        cfg.faults.invalidate_delay = seed % 7 * 1_500;
        cfg.faults.set_tcb_rpl_delay = seed % 5 * 2_000;
        let (mut r, a, b) = setup(cfg);
        let buf = r.arm_new(b, 0, 0, 60_000, true);
        r.send_pattern(a, 1, 0, 60_000);
        r.run(2_000 + seed * 250);
        r.invalidate(b, 0);
        let m = r.wait_tid(Opcode::SetTcbRpl, b);
        let writes = r.b.writes;
        let (got, was_valid) = wire::tcb::reached(
            wire::DdpBuf::B0,
            wire::SetTcbRpl::parse(&m.cpl).unwrap().oldval,
        );
        let done = r.recv[&b].ddp.len();
        assert_eq!(was_valid, done == 0, "seed {seed}");
        let placed = if was_valid { got } else { r.recv[&b].ddp[0].1 };
        r.idle();
        assert_eq!(r.b.writes, writes, "seed {seed}: a write after the reply");
        let mut all = r.read_buf(&buf)[..placed as usize].to_vec();
        assert!(
            r.read_buf(&buf)[placed as usize..]
                .iter()
                .all(|&x| x == 0xee)
        );
        all.extend_from_slice(&r.recv[&b].data);
        assert!(all == pattern(1, 0, 60_000), "seed {seed}: {placed} placed");
    }
}

#[test]
fn data_lands_until_a_delayed_invalidate_takes_effect() {
    let mut cfg = Config::default();
    cfg.faults.invalidate_delay = 50_000;
    let (mut r, a, b) = setup(cfg);
    let buf = r.arm_new(b, 0, 0, 50_000, true);
    r.run(5_000);
    r.invalidate(b, 0);
    let addr = r.alloc_with(&pattern(1, 0, 5_000), 64);
    let wr = r.sgl_wr(a, &[(addr, 5_000)], false, true);
    r.queue_wr(a, wr, 5_000);
    let m = r.wait_tid(Opcode::SetTcbRpl, b);
    let old = wire::SetTcbRpl::parse(&m.cpl).unwrap().oldval;
    assert_eq!(wire::tcb::reached(wire::DdpBuf::B0, old), (5_000, true));
    assert!(r.read_buf(&buf)[..5_000] == pattern(1, 0, 5_000));
}

#[test]
fn invalidate_is_answered_after_a_reset() {
    let (mut r, a, b) = setup(Config::default());
    r.auto_abort = false;
    r.arm_new(b, 0, 0, 50_000, true);
    r.run(5_000);
    r.abort(a);
    r.run_while("RST", |r| r.recv[&b].abort.is_none());
    r.invalidate(b, 0);
    r.wait_tid(Opcode::SetTcbRpl, b);
}

// End of the stream.

#[test]
fn fin_with_both_buffers_partly_filled() {
    let (mut r, a, b) = setup(Config::default());
    let b0 = r.arm_new(b, 0, 0, 10_000, true);
    let b1 = r.arm_new(b, 1, 100, 50_000, false);
    let addr = r.alloc_with(&pattern(1, 0, 13_000), 64);
    let wr = r.sgl_wr(a, &[(addr, 13_000)], false, true);
    r.queue_wr(a, wr, 13_000);
    r.close(a);
    r.run_while("FIN", |r| r.recv[&b].fin.is_none());
    assert_eq!(r.recv[&b].fin, Some(1001 + 13_000 + 1));
    assert_eq!(r.recv[&b].ddp.len(), 1, "only the full one was handed back");
    assert_eq!(r.recv[&b].nxt, 1001 + 10_000);
    assert!(r.read_buf(&b0) == pattern(1, 0, 10_000));
    assert!(r.read_buf(&b1)[..3_000] == pattern(1, 10_000, 3_000));
}

#[test]
fn held_data_is_delivered_before_the_fin() {
    let (mut r, a, b) = setup(Config {
        indicate_hold: 1_000_000_000,
        ..Config::default()
    });
    r.send_pattern(a, 1, 0, 3_000);
    r.run(1_000);
    r.close(a);
    r.run_while("FIN", |r| r.recv[&b].fin.is_none());
    assert!(r.recv[&b].data == pattern(1, 0, 3_000));
    assert_eq!(r.recv[&b].fin, Some(r.recv[&b].nxt + 1));
}

#[test]
fn nothing_is_placed_after_a_reset_is_reported() {
    let (mut r, a, b) = setup(Config::default());
    r.arm_new(b, 0, 0, 500_000, true);
    r.send_pattern(a, 1, 0, 500_000);
    r.run(60_000);
    let now = r.now;
    r.card.link_reset(now, b);
    let writes = r.b.writes;
    r.idle();
    assert_eq!(r.b.writes, writes);
}

// Falling out.

#[test]
fn falling_out_of_ddp_tells_what_was_placed() {
    let (mut r, a, b) = setup(Config {
        seg_min: 4000,
        seg_max: 4000,
        ..Config::default()
    });
    let buf = r.arm_new(b, 0, 0, 50_000, true);
    let addr = r.alloc_with(&pattern(1, 0, 8_000), 64);
    let wr = r.sgl_wr(a, &[(addr, 4_000)], false, true);
    r.queue_wr(a, wr, 4_000);
    r.run(100_000);
    assert!(r.card.ddp_fall_out(b));
    let wr = r.sgl_wr(a, &[(addr + 4_000, 4_000)], true, true);
    r.queue_wr(a, wr, 4_000);
    r.recv_bytes(b, 4_000);
    let m = r.wait_tid(Opcode::RxData, b);
    let d = wire::RxData::parse(&m.cpl).unwrap();
    assert_eq!((d.ddp_off, d.seq), (true, 1001 + 4_000));
    let info = r.card.connection(b).unwrap().ddp;
    assert!(!info.on && !info.bufs[0].valid);
    assert!(r.read_buf(&buf)[..4_000] == pattern(1, 0, 4_000));
    assert_eq!(r.card.stats().ddp_off, 1);
    // Switched on again, it places again.
    r.ddp_on(b);
    let buf = r.arm_new(b, 0, 200, 10_000, true);
    r.send_pattern(a, 1, 8_000, 10_000);
    r.wait_ddp(b, 1);
    assert!(r.read_buf(&buf) == pattern(1, 8_000, 10_000));
}

#[test]
fn turning_ddp_off_delivers_what_is_held() {
    let (mut r, a, b) = setup(Config {
        indicate_hold: 1_000_000_000,
        ..Config::default()
    });
    r.send_pattern(a, 1, 0, 3_000);
    r.run(100_000);
    assert_eq!(r.card.connection(b).unwrap().held, 3_000);
    let off = wire::TF_DDP_OFF;
    let u = wire::TcbUpdate {
        word: wire::W_RX_DDP_FLAGS,
        mask: off,
        value: off,
    };
    r.set_tcb(b, &u, None);
    r.recv_bytes(b, 3_000);
    assert_eq!(r.recv[&b].last_ddp_off, Some(true));
}

#[test]
fn armed_with_no_room_comes_back_at_once() {
    let (mut r, a, b) = setup(Config::default());
    let buf = r.buffer(1_000, 0, 0);
    let tag = r.write_pods(b, 0, &buf);
    r.arm(b, 0, tag, 1_000, 1_000, true);
    r.send_pattern(a, 1, 0, 10);
    r.wait_ddp(b, 1);
    assert_eq!(r.recv[&b].ddp[0].1, 0);
    r.recv_bytes(b, 10);
}

#[test]
fn compound_is_atomic_and_in_queue_order() {
    // Pods and the posting ride one queue under jitter: the buffer never meets missing pods.
    for seed in 0..30 {
        let mut cfg = Config {
            seed,
            ..Config::default()
        };
        cfg.faults.wr_jitter = 20_000;
        let (mut r, a, b) = setup(cfg);
        r.send_pattern(a, 1, 0, 40_000);
        let buf = r.arm_new(b, 0, 0, 40_000, true);
        r.wait_ddp(b, 1);
        assert_eq!(r.card.stats().ddp_errors, 0);
        let n = r.recv[&b].ddp[0].1 as usize;
        assert!(r.read_buf(&buf)[..n] == pattern(1, r.recv[&b].data.len() as u64, n));
    }
}

#[test]
fn an_indicate_can_cross_a_buffer_being_posted() {
    let (mut r, a, b) = setup(one_segment());
    let f = t5sim::Faults {
        indicate_ppm: 1_000_000,
        ..t5sim::Faults::default()
    };
    r.card.set_faults(f);
    r.send_pattern(a, 1, 0, 2_000);
    // The indicate is on its way to the host when the buffer is posted.
    r.run(5_000);
    assert!(r.recv[&b].data.is_empty());
    let buf = r.arm_new(b, 0, 0, 10_000, true);
    r.send_pattern(a, 1, 2_000, 10_000);
    r.wait_ddp(b, 1);
    assert_eq!(r.recv[&b].data, pattern(1, 0, 2_000));
    assert!(r.read_buf(&buf) == pattern(1, 2_000, 10_000));
    assert_eq!(r.card.stats().indicates, 1);
}

#[test]
fn placement_outside_host_memory_is_counted() {
    let (mut r, a, b) = setup(Config::default());
    let mut buf = r.buffer(5_000, 0, 0);
    let good = buf.pages[1];
    buf.pages[1] = 0x1000;
    let tag = r.write_pods(b, 0, &buf);
    r.arm(b, 0, tag, 0, 5_000, true);
    r.send_pattern(a, 1, 0, 5_000);
    r.wait_ddp(b, 1);
    assert!(r.card.stats().dma_faults > 0);
    assert!(r.mem(good, 4096).iter().all(|&x| x == 0xee));
    let p0 = buf.pages[0];
    assert!(*r.mem(p0, 4096) == pattern(1, 0, 4096));
}

#[test]
fn every_chip_places() {
    for chip in [wire::Chip::T4, wire::Chip::T5, wire::Chip::T6] {
        let (mut r, a, b) = setup(Config {
            chip,
            ..Config::default()
        });
        let buf = r.arm_new(b, 0, 3, 33_333, true);
        r.send_pattern(a, 1, 0, 33_333);
        r.wait_ddp(b, 1);
        assert!(r.read_buf(&buf) == pattern(1, 0, 33_333), "{chip:?}");
    }
}

#[test]
fn sequence_numbers_wrap_inside_a_buffer() {
    let mut r = Rig::new(Config {
        seg_min: 1_000,
        seg_max: 2_000,
        ..Config::default()
    });
    let o = Opts {
        ddp: true,
        iss_a: u32::MAX - 20_000,
        ..Opts::default()
    };
    let (a, b) = r.connect_with(&o, 5000);
    r.ddp_on(b);
    let buf = r.arm_new(b, 0, 0, 60_000, true);
    r.send_pattern(a, 1, 0, 60_000);
    r.wait_ddp(b, 1);
    assert_eq!(r.recv[&b].ddp[0].1, 60_000);
    assert!(r.read_buf(&buf) == pattern(1, 0, 60_000));
}

#[test]
fn a_retransmission_does_not_write_twice() {
    let (mut r, a, b) = setup(Config {
        ack_delay: 20_000_000,
        ..Config::default()
    });
    let buf = r.arm_new(b, 0, 0, 50_000, true);
    let addr = r.alloc_with(&pattern(1, 0, 5_000), 64);
    let wr = r.sgl_wr(a, &[(addr, 5_000)], false, true);
    r.queue_wr(a, wr, 5_000);
    r.run(1_000_000);
    let writes = r.b.writes;
    // The acknowledgement is late: the sender's timer fires, and other bytes are in its pages.
    r.mem(addr, 5_000).fill(0);
    r.run(10_000_000);
    assert!(r.card.stats().rexmt_bytes >= 5_000);
    assert_eq!(r.b.writes, writes);
    assert!(r.read_buf(&buf)[..5_000] == pattern(1, 0, 5_000));
}
