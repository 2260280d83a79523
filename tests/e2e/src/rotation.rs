//! A program that rotates over many buffers: what each read or write costs once all have been used.

use std::collections::VecDeque;

use ukern::proc::{AioCb, Child, Proc, ProcConfig, Prot, UserVa, addr};
use ukern::{Api, Kernel};

use crate::bed::{Bed, CLIENT, SERVER, SERVER_IP, TOE};
use crate::pattern;

/// Bytes of each buffer.
pub const BUF: usize = 64 << 10;
/// Bytes of a page.
const PAGE: usize = 4096;
/// Rounds over all buffers before anything is counted, and jobs at least: the first ones may be
/// served by copies.
const WARM_UP: usize = 3;
const WARM_UP_JOBS: usize = 32;
/// Least jobs that are counted.
const JOBS: usize = 512;
/// Port to listen on.
const PORT: u16 = 5001;

/// What the program does with its buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// `aio_read(2)` into them.
    Reads,
    /// New bytes into one of them, and `aio_write(2)` from it.
    Writes,
}

impl Way {
    /// Page sets that jobs of this kind may use of a cache of so many: writes leave some to reads.
    #[must_use]
    pub fn room(self, cache: usize) -> usize {
        match self {
            Way::Reads => cache,
            Way::Writes => cache.saturating_sub(4),
        }
    }

    /// The counter of bytes that went without a copy.
    fn uncopied(self) -> &'static str {
        match self {
            Way::Reads => "rx_aio_ddp_octets",
            Way::Writes => "tx_aio_octets",
        }
    }
}

/// What was counted, and over how many jobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Buffers the program rotated over.
    pub buffers: usize,
    /// Page sets a connection keeps.
    pub cache: usize,
    /// Jobs counted.
    pub jobs: u64,
    /// Bytes they moved.
    pub bytes: u64,
    /// Buffers whose pages were faulted in and wired.
    pub holds: u64,
    /// Page pods written to the adapter.
    pub pods: u64,
    /// Calls of malloc(9) by toehold.
    pub allocs: u64,
    /// Bytes that the adapter placed in the buffers, or read from them.
    pub placed: u64,
    /// Pages that the process's page table was asked for (`pmap_extract`), to see whether a
    /// cached buffer still shows the pages that are held.
    pub lookups: u64,
}

impl Cost {
    /// Cost of one job: `n` of a field.
    #[must_use]
    pub fn per_job(&self, n: u64) -> f64 {
        n as f64 / self.jobs.max(1) as f64
    }

    /// Looks at the page table per page of the jobs' buffers.
    #[must_use]
    pub fn lookups_per_page(&self) -> f64 {
        self.per_job(self.lookups) / (BUF / PAGE) as f64
    }
}

/// The counters now: holds, pods, allocations, bytes not copied, looks at the page table.
fn counters(k: Api, way: Way) -> [u64; 5] {
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
        stat(way.uncopied()),
        k.pmap_extracts(),
    ]
}

/// The page sets in force: `toe.ddp_cache`.
fn cache(k: &Kernel) -> usize {
    let v = k.sysctl_get(&format!("{TOE}.ddp_cache"));
    let n = v.ok().and_then(|v| v.as_u64()).expect("toe.ddp_cache");
    usize::try_from(n).unwrap_or(0)
}

/// How long it goes on.
#[derive(Clone, Copy)]
struct Plan {
    way: Way,
    seed: u64,
    buffers: usize,
    warm_up: usize,
    jobs: usize,
}

/// The program that rotates: jobs on all its buffers, the oldest one renewed when it is done.
/// What the counters grew by, and how many bytes the counted jobs moved.
fn rotate(p: &Proc, s: i32, plan: Plan, k: Api) -> ([u64; 5], u64) {
    let Plan { way, seed, .. } = plan;
    let mut sent = 0;
    let mut begin = |va: UserVa| -> (UserVa, AioCb) {
        let cb = match way {
            Way::Reads => p.aio_read(s, va, BUF),
            Way::Writes => {
                p.store(va, &pattern::bytes(seed, sent, BUF))
                    .expect("store");
                sent += BUF as u64;
                p.aio_write(s, va, BUF)
            }
        };
        (va, cb.expect("a job"))
    };
    let bufs: Vec<UserVa> = (0..plan.buffers).map(|_| p.alloc(&[0xee; BUF])).collect();
    let mut busy: VecDeque<_> = bufs.iter().map(|va| begin(*va)).collect();
    let (mut at, mut got) = (0, 0);
    let mut before = [0; 5];
    for i in 0..plan.warm_up + plan.jobs {
        if i == plan.warm_up {
            (before, got) = (counters(k, way), at);
        }
        let (va, cb) = busy.pop_front().expect("a job is outstanding");
        let n = p.aio_wait(cb).expect("a job's bytes");
        match way {
            Way::Reads => {
                assert!(n > 0, "end of file");
                pattern::check(seed, at, &p.load_vec(va, n));
            }
            Way::Writes => assert_eq!(n, BUF, "a short write"),
        }
        at += n as u64;
        busy.push_back(begin(va));
    }
    let after = counters(k, way);
    let bytes = at - got;
    if way == Way::Reads {
        let _ = p.aio_cancel(s, None).expect("aio_cancel");
    }
    for (_, cb) in busy {
        let _ = p.aio_wait(cb);
    }
    ([0, 1, 2, 3, 4].map(|i| after[i] - before[i]), bytes)
}

/// The program at the other end, which uses no page set: it writes until the rotating one has had
/// enough, or reads to the end and looks at every byte.
fn other(p: &Proc, s: i32, way: Way, seed: u64) {
    match way {
        Way::Reads => {
            let va = p.mmap(BUF, Prot::RW).expect("mmap");
            for off in (0..).step_by(BUF) {
                p.store(va, &pattern::bytes(seed, off, BUF)).expect("store");
                if p.write(s, va, BUF) != Ok(BUF) {
                    break;
                }
            }
        }
        Way::Writes => {
            let mut at = 0;
            loop {
                let got = p.recv_bytes(s, BUF).expect("recv");
                if got.is_empty() {
                    break;
                }
                pattern::check(seed, at, &got);
                at += got.len() as u64;
            }
        }
    }
}

fn start_rotating(bed: &Bed, plan: Plan) -> Child<([u64; 5], u64)> {
    let k = bed.k.api();
    let how = ProcConfig::vnet(SERVER).name("rotating");
    let child = bed.k.spawn(how, move |p| {
        let l = p.socket().expect("socket");
        p.bind(l, addr(SERVER_IP, PORT)).expect("bind");
        p.listen(l, 1).expect("listen");
        let (s, _) = p.accept(l).expect("accept");
        let r = rotate(p, s, plan, k);
        p.close(s).expect("close");
        p.close(l).expect("close");
        r
    });
    bed.k.run_until_idle();
    child
}

/// Rotate over `buffers` buffers, all of them with a job outstanding, and count. `set_cache`:
/// another `toe.ddp_cache` than the default.
///
/// # Panics
/// If a system call fails or a byte is wrong.
#[must_use]
pub fn run(way: Way, seed: u64, buffers: usize, set_cache: Option<i64>) -> Cost {
    let bed = Bed::up(seed);
    if let Some(n) = set_cache {
        bed.set("ddp_cache", n);
    }
    let mut cost = Cost {
        buffers,
        cache: cache(&bed.k),
        ..Cost::default()
    };
    let plan = Plan {
        way,
        seed,
        buffers,
        warm_up: (WARM_UP * buffers).max(WARM_UP_JOBS),
        jobs: JOBS.next_multiple_of(buffers),
    };
    let rotating = start_rotating(&bed, plan);
    let client = bed
        .k
        .spawn(ProcConfig::vnet(CLIENT).name("other"), move |p| {
            let s = p.socket().expect("socket");
            p.connect(s, addr(SERVER_IP, PORT)).expect("connect");
            assert!(
                p.is_offloaded(s).expect("is_offloaded"),
                "the connection is not offloaded"
            );
            other(p, s, way, seed);
            p.close(s).expect("close");
        });
    let (grown, bytes) = rotating.join();
    client.join();
    bed.down();
    [
        cost.holds,
        cost.pods,
        cost.allocs,
        cost.placed,
        cost.lookups,
    ] = grown;
    (cost.jobs, cost.bytes) = (plan.jobs as u64, bytes);
    cost
}
