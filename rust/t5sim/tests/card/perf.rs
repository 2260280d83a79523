use crate::rig::*;
use t5sim::Config;

/// 100 MiB by DDP into two buffers of 1 MiB: the host time is for people to read (run with
/// --release --nocapture); what is asserted is that the work per byte stays bounded.
#[test]
fn a_hundred_mebibytes() {
    let mut r = Rig::new(Config {
        seg_min: 16_384,
        seg_max: 65_535,
        ..Config::default()
    });
    r.check_every(1_000);
    let o = Opts {
        ddp: true,
        rcv_kb: 1000,
        wscale: 6,
        ..Opts::default()
    };
    let (a, b) = r.connect_with(&o, 5000);
    r.ddp_on(b);
    let size = 1_u32 << 20;
    let bufs = [r.buffer(size, 0, 3), r.buffer(size, 0, 3)];
    let tags = [r.write_pods(b, 0, &bufs[0]), r.write_pods(b, 64, &bufs[1])];
    r.arm(b, 0, tags[0], 0, size, true);
    r.arm(b, 1, tags[1], 0, size, false);
    let src = r.alloc_with(&pattern(1, 0, size as usize), 4096);
    let total = 100_u64 << 20;
    let t = std::time::Instant::now();
    let t0 = r.now;
    for _ in 0..100 {
        let segs: Vec<(u64, u32)> = (0..16).map(|i| (src + i * 65_536, 65_536)).collect();
        let wr = r.sgl_wr(a, &segs, false, false);
        r.queue_wr(a, wr, u64::from(size));
    }
    let mut got = 0;
    let mut seen = 0;
    while got < total {
        r.wait_ddp(b, seen + 1);
        let (rep, n, _) = r.recv[&b].ddp[seen];
        seen += 1;
        got += u64::from(n);
        let i = usize::from(rep.buf_idx);
        r.arm(b, i, tags[i], 0, size, false);
    }
    let took = r.now - t0;
    println!(
        "100 MiB: {:?} of host time, {} us of virtual time, {} segments, {} DMA writes",
        t.elapsed(),
        took / 1_000,
        r.card.stats().segments,
        r.b.writes
    );
    assert_eq!(r.card.stats().ddp_bytes, total);
    assert_eq!(r.b.read_bytes, total, "every byte is read once");
    assert!(r.b.writes < 8_000, "{} DMA writes", r.b.writes);
    // 40 Gb/s is 21 ms.
    assert!(took < 30_000_000, "{took} ns for 100 MiB");
    assert!(r.read_buf(&bufs[0]) == pattern(1, 0, size as usize));
}
