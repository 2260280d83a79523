//! Next hops: an entry of the adapter's L2 table is in use while a connection uses it, no longer.

use toehold_e2e::bed::{Bed, CLIENT, SERVER, SERVER_IP};
use ukern::proc::{Errno, ProcConfig, addr};

/// Entries in use.
fn used(bed: &Bed) -> u64 {
    bed.sim_stat("l2t_size") - bed.sim_stat("l2t_free")
}

#[test]
fn an_entry_goes_with_its_last_connection() {
    let bed = Bed::up(300);
    let server = bed.k.spawn(ProcConfig::vnet(SERVER).name("server"), |p| {
        let l = p.socket().unwrap();
        p.bind(l, addr(SERVER_IP, 7)).unwrap();
        p.listen(l, 8).unwrap();
        let all: Vec<_> = (0..3).map(|_| p.accept(l).unwrap().0).collect();
        for s in all {
            assert!(p.recv_bytes(s, 1).unwrap().is_empty());
            p.close(s).unwrap();
        }
    });
    bed.k.run_until_idle();
    assert_eq!(used(&bed), 0);
    let client = bed.k.spawn(ProcConfig::vnet(CLIENT).name("client"), |p| {
        let mut all = Vec::new();
        for _ in 0..3 {
            let s = p.socket().unwrap();
            p.connect(s, addr(SERVER_IP, 7)).unwrap();
            assert!(p.is_offloaded(s).unwrap());
            all.push(s);
        }
        p.sleep(std::time::Duration::from_secs(2));
        for s in all {
            p.close(s).unwrap();
        }
    });
    bed.k.run_for(ukern::sched::SBT_1S);
    // One at either end, however many connections share it.
    assert_eq!(used(&bed), 2);
    client.join();
    server.join();
    bed.settle();
    assert_eq!(used(&bed), 0);
    bed.down();
}

/// Stations that are not there: what waited for their answer lets go of the entry, too.
#[test]
fn entries_of_stations_that_do_not_answer() {
    let bed = Bed::up(301);
    let client = bed.k.spawn(ProcConfig::vnet(CLIENT).name("client"), |p| {
        for i in 0..20 {
            let s = p.socket().unwrap();
            let e = p.connect(s, addr(&format!("10.0.0.{}", 100 + i), 7));
            assert!(
                matches!(
                    e,
                    Err(Errno::EHOSTUNREACH | Errno::EHOSTDOWN | Errno::ETIMEDOUT)
                ),
                "{e:?}"
            );
            p.close(s).unwrap();
        }
    });
    client.join();
    bed.settle();
    assert_eq!(used(&bed), 0);
    bed.down();
}
