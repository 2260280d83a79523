//! Memory that toehold.ko has for connections, as the kernel's malloc(9) counts it.

use std::time::Duration;

use ukern::proc::{Child, Proc, ProcConfig, Prot, VnetId, addr};
use ukern::sched::SBT_1S;

use crate::bed::{Bed, CLIENT, SERVER, SERVER_IP};

/// Memory of some connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Offloaded connections, as the module counts them.
    pub conns: u64,
    /// Bytes asked for.
    pub asked: u64,
    /// The same as malloc(9) rounds them.
    pub taken: u64,
}

/// Bytes of a write, and of the read at the other end.
const LEN: usize = 4096;
/// Port to listen on.
const PORT: u16 = 5002;

fn cost(bed: &Bed) -> Cost {
    let (asked, taken) = bed.k.malloc_bytes("toehold");
    Cost {
        conns: bed.stat("toepcbs"),
        asked,
        taken,
    }
}

fn since(now: Cost, then: Cost) -> Cost {
    Cost {
        conns: now.conns - then.conns,
        asked: now.asked - then.asked,
        taken: now.taken - then.taken,
    }
}

/// Waits, then uses every connection once, and waits again.
fn idle_use_idle(p: &Proc, fds: &[i32], one: impl Fn(&Proc, i32)) {
    p.sleep(Duration::from_secs(10));
    for s in fds {
        one(p, *s);
    }
    p.sleep(Duration::from_secs(3600));
}

fn config(name: &'static str, vnet: VnetId, pairs: usize) -> ProcConfig {
    let mut c = ProcConfig::vnet(vnet).name(name);
    c.nofile = pairs + 8;
    c
}

fn server(bed: &Bed, pairs: usize) -> Child<()> {
    bed.k.spawn(config("server", SERVER, pairs), move |p| {
        let l = p.socket().unwrap();
        p.bind(l, addr(SERVER_IP, PORT)).unwrap();
        p.listen(l, 128).unwrap();
        let fds: Vec<i32> = (0..pairs).map(|_| p.accept(l).unwrap().0).collect();
        p.close(l).unwrap();
        let va = p.mmap(LEN, Prot::RW).unwrap();
        idle_use_idle(p, &fds, |p, s| {
            let cb = p.aio_read(s, va, LEN).unwrap();
            p.aio_wait(cb).unwrap();
        });
    })
}

fn client(bed: &Bed, pairs: usize) -> Child<()> {
    bed.k.spawn(config("client", CLIENT, pairs), move |p| {
        let open = |_| {
            let s = p.socket().unwrap();
            p.connect(s, addr(SERVER_IP, PORT)).unwrap();
            s
        };
        let fds: Vec<i32> = (0..pairs).map(open).collect();
        let va = p.mmap(LEN, Prot::RW).unwrap();
        p.fill(va, LEN, 1).unwrap();
        idle_use_idle(p, &fds, |p, s| {
            let cb = p.aio_write(s, va, LEN).unwrap();
            assert_eq!(p.aio_wait(cb), Ok(LEN));
        });
    })
}

/// Opens `pairs` connections with both ends on the adapter: what they take having done nothing,
/// and after one aio request each. In the second case page sets are cached, as far as they may.
///
/// # Errors
/// Not all of them are offloaded.
pub fn measure(seed: u64, pairs: usize) -> Result<(Cost, Cost), String> {
    let bed = Bed::up(seed);
    let s = server(&bed, pairs);
    bed.k.run_for(SBT_1S / 10);
    let none = cost(&bed);
    let c = client(&bed, pairs);
    bed.k.run_for(SBT_1S * 5);
    let never = since(cost(&bed), none);
    bed.k.run_for(SBT_1S * 60);
    let after = since(cost(&bed), none);
    c.join();
    s.join();
    bed.down();
    let want = 2 * pairs as u64;
    if never.conns != want || after.conns != want {
        return Err(format!(
            "{} and {} of {want} connections were offloaded",
            never.conns, after.conns
        ));
    }
    Ok((never, after))
}
