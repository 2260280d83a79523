//! A receiver that rotates over many buffers: what each read costs once all have been used.

use ukern::proc::{ProcConfig, Prot, addr};
use ukern::{Api, Kernel};

use crate::bed::{Bed, CLIENT, SERVER, SERVER_IP, TOE};
use crate::pattern;

/// Bytes of each buffer.
pub const BUF: usize = 64 << 10;
/// Rounds over all buffers before anything is counted, and reads at least: the first ones may be
/// served by copies.
const WARM_UP: usize = 3;
const WARM_UP_JOBS: usize = 32;
/// Least reads that are counted.
const JOBS: usize = 512;
/// Port to listen on.
const PORT: u16 = 5001;

/// What was counted, and over how many reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Buffers the receiver rotated over.
    pub buffers: usize,
    /// Page sets a connection keeps.
    pub cache: usize,
    /// Reads counted.
    pub jobs: u64,
    /// Bytes they returned.
    pub bytes: u64,
    /// Buffers whose pages were faulted in and wired.
    pub holds: u64,
    /// Page pods written to the adapter.
    pub pods: u64,
    /// Calls of malloc(9) by toehold.
    pub allocs: u64,
    /// Bytes the adapter placed.
    pub placed: u64,
}

impl Cost {
    /// Cost of the one read: `n` of a field.
    #[must_use]
    pub fn per_job(&self, n: u64) -> f64 {
        n as f64 / self.jobs.max(1) as f64
    }
}

/// The counters now: holds, pods, allocations, placed bytes.
fn counters(k: Api) -> [u64; 4] {
    let stat = |name: &str| {
        let v = k.sysctl_get(&format!("{TOE}.stats.{name}"));
        v.ok()
            .and_then(|v| v.as_u64())
            .expect("a counter of toehold")
    };
    [
        stat("cache_misses"),
        stat("ppods_written"),
        k.malloc_calls("toehold"),
        stat("rx_aio_ddp_octets"),
    ]
}

/// The page sets in force: `toe.ddp_cache`.
fn cache(k: &Kernel) -> usize {
    let v = k.sysctl_get(&format!("{TOE}.ddp_cache"));
    let n = v.ok().and_then(|v| v.as_u64()).expect("toe.ddp_cache");
    usize::try_from(n).unwrap_or(0)
}

/// Rotate over `buffers` buffers, all of them with a read outstanding, and count. `set_cache`:
/// another `toe.ddp_cache` than the default.
///
/// # Panics
/// If a system call fails or a byte is wrong.
#[must_use]
pub fn run(seed: u64, buffers: usize, set_cache: Option<i64>) -> Cost {
    let bed = Bed::up(seed);
    if let Some(n) = set_cache {
        bed.set("ddp_cache", n);
    }
    let mut cost = Cost {
        buffers,
        cache: cache(&bed.k),
        ..Cost::default()
    };
    let k = bed.k.api();
    let jobs = JOBS.next_multiple_of(buffers);
    let warm_up = (WARM_UP * buffers).max(WARM_UP_JOBS);
    let server = bed
        .k
        .spawn(ProcConfig::vnet(SERVER).name("receiver"), move |p| {
            let l = p.socket().expect("socket");
            p.bind(l, addr(SERVER_IP, PORT)).expect("bind");
            p.listen(l, 1).expect("listen");
            let (s, _) = p.accept(l).expect("accept");
            let bufs: Vec<u64> = (0..buffers).map(|_| p.alloc(&[0xee; BUF])).collect();
            let mut busy: std::collections::VecDeque<_> = bufs
                .iter()
                .map(|va| (*va, p.aio_read(s, *va, BUF).expect("aio_read")))
                .collect();
            let (mut at, mut got) = (0, 0);
            let mut before = [0; 4];
            for i in 0..warm_up + jobs {
                if i == warm_up {
                    (before, got) = (counters(k), at);
                }
                let (va, cb) = busy.pop_front().expect("a read is outstanding");
                let n = p.aio_wait(cb).expect("aio_read");
                assert!(n > 0, "end of file");
                pattern::check(seed, at, &p.load_vec(va, n));
                at += n as u64;
                busy.push_back((va, p.aio_read(s, va, BUF).expect("aio_read")));
            }
            let after = counters(k);
            let _ = p.aio_cancel(s, None).expect("aio_cancel");
            for (_, cb) in busy {
                let _ = p.aio_wait(cb);
            }
            p.close(s).expect("close");
            p.close(l).expect("close");
            ([0, 1, 2, 3].map(|i| after[i] - before[i]), at - got)
        });
    bed.k.run_until_idle();
    let client = bed
        .k
        .spawn(ProcConfig::vnet(CLIENT).name("sender"), move |p| {
            let s = p.socket().expect("socket");
            p.connect(s, addr(SERVER_IP, PORT)).expect("connect");
            assert!(
                p.is_offloaded(s).expect("is_offloaded"),
                "the connection is not offloaded"
            );
            // Plain writes: only the receiver uses page sets. Until the receiver has had enough.
            let va = p.mmap(BUF, Prot::RW).expect("mmap");
            for off in (0..).step_by(BUF) {
                p.store(va, &pattern::bytes(seed, off, BUF)).expect("store");
                if p.write(s, va, BUF) != Ok(BUF) {
                    break;
                }
            }
            p.close(s).expect("close");
        });
    let (grown, bytes) = server.join();
    client.join();
    bed.down();
    [cost.holds, cost.pods, cost.allocs, cost.placed] = grown;
    (cost.jobs, cost.bytes) = (jobs as u64, bytes);
    cost
}
